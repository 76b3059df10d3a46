"""What a model's folder must be before anything is built from it: whole, known, and free of code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recaster.bases.safetensors_header import TensorHead, read_header
from recaster.core.errors import BaseModelError

INDEX = "model.safetensors.index.json"
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_NOT_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked", "position_ids")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file `path`.

    Raises:
        BaseModelError: it is missing, not JSON, or no object.
    """
    value = _read_json(path)
    if not isinstance(value, dict):
        raise _refuse(f"{path.name} is no JSON object.", path, type(value).__name__, "fetch it again")
    return value


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise _refuse(f"{path.name} is missing.", path, "", "name a folder that holds it") from None
    except (ValueError, RecursionError) as error:
        raise _refuse(f"{path.name} is not JSON.", path, str(error), "fetch or copy it again") from error


def refuse_code(folder: Path) -> None:
    """Refuse configurations that ask for Python code of the model's own.

    Raises:
        BaseModelError: a JSON file of the folder has `auto_map` or `custom_pipelines`.
    """
    for path in sorted(folder.glob("*config.json")):
        for key, value in _walk(_read_json(path)):
            if key in {"auto_map", "custom_pipelines"} and value:
                raise _refuse(
                    "The model wants to run Python code of its own, which is never done.",
                    path,
                    f"{key}: {json.dumps(value)[:200]}",
                    "use a model whose architecture transformers itself has (its type is "
                    "model_type), or a converted copy without that code",
                )


def _walk(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key), value
            yield from _walk(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _walk(value)


def read_tensors(folder: Path) -> dict[str, TensorHead]:
    """All tensors of the folder's weights by name, from one file or from shards.

    Raises:
        BaseModelError: a file is missing, damaged, or the index does not tell the truth.
    """
    if (folder / "model.safetensors").exists():
        return read_header(folder / "model.safetensors")
    if not (folder / INDEX).exists():
        raise _refuse("There are no weights.", folder, "", "the folder needs model.safetensors, or an index")
    places = read_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise _refuse("The index of shards names no tensors.", folder / INDEX, "", "fetch it again")
    heads: dict[str, dict[str, TensorHead]] = {}
    for shard in sorted(set(places.values())):
        if "/" in shard or not (folder / shard).is_file():
            raise _refuse(
                "The index of shards names a file that is not there.",
                folder / INDEX,
                shard,
                "fetch or copy the missing shard",
            )
        heads[shard] = read_header(folder / shard)
    lost = sorted(name for name, shard in places.items() if name not in heads[shard])
    if lost:
        raise _refuse(
            "The index of shards names tensors that its files lack.",
            folder / INDEX,
            ", ".join(lost[:5]),
            "fetch the model again",
        )
    return {name: heads[shard][name] for name, shard in places.items()}


def count_parameters(tensors: dict[str, TensorHead]) -> int:
    """Learned numbers in the weights; running averages and counters are none."""
    total = 0
    for name, head in tensors.items():
        if name.rsplit(".", 1)[-1] not in _NOT_PARAMETERS:
            size = 1
            for length in head.shape:
                size *= length
            total += size
    return total


def check_architecture(folder: Path) -> str:
    """The architecture that a transformers configuration names.

    Raises:
        BaseModelError: the installed transformers does not know it.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    config = read_object(folder / "config.json")
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING_NAMES:
        import transformers

        raise _refuse(
            "The architecture is unknown.",
            folder / "config.json",
            f"model_type {kind!r}",
            f"use an architecture that transformers {transformers.__version__} has, or a newer transformers",
        )
    named = config.get("architectures") or [kind]
    return str(named[0])


def check_vocabulary(folder: Path) -> None:
    """Refuse a tokenizer with tokens that the model has no vector for.

    An added token above the table is let through where it has no role in ordinary text: some published
    models have such (a place holder for pictures, in a model without pictures).

    Raises:
        BaseModelError: names both sizes and the first token too many.
    """
    config = read_object(folder / "config.json")
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    if not isinstance(size, int):
        return
    try:
        tokens = _read_tokens(folder)
    except (TypeError, KeyError, IndexError, AttributeError, UnicodeDecodeError) as error:
        raise _refuse(
            "The tokenizer's files are damaged.", folder, repr(error), "fetch or copy them again"
        ) from error
    above = sorted((number, token) for token, number in tokens.items() if number >= size)
    if above:
        raise _refuse(
            "The tokenizer has more tokens than the model has vectors.",
            folder,
            f"tokens up to {above[-1][0]}, vectors {size}; the first without one is {above[0][1]!r}",
            "use the tokenizer that was published with these weights",
        )


def _read_tokens(folder: Path) -> dict[str, int]:
    """Token numbers by token, as far as ordinary text can meet them."""
    if (folder / "tokenizer.json").exists():
        tree = read_object(folder / "tokenizer.json")
        words = (tree.get("model") or {}).get("vocab") or {}
        plain = words if isinstance(words, dict) else {word[0]: row for row, word in enumerate(words)}
        roles = _read_roles(folder)
        added = {entry["content"]: entry["id"] for entry in tree.get("added_tokens") or []}
        return plain | {token: row for token, row in added.items() if token in roles}
    if (folder / "vocab.txt").exists():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return {word: row for row, word in enumerate(lines)}
    if (folder / "vocab.json").exists():
        return read_object(folder / "vocab.json")
    return {}


def _read_roles(folder: Path) -> set[str]:
    """The tokens that every text gets: beginning, end, padding and the like."""
    roles: set[Any] = set()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        tree = read_object(folder / name) if (folder / name).exists() else {}
        for role in _ROLES:
            entry = tree.get(f"{role}_token")
            roles.add(entry.get("content") if isinstance(entry, dict) else entry)
    return {role for role in roles if isinstance(role, str)}


def _refuse(what: str, where: Path, value: str, repair: str) -> BaseModelError:
    return BaseModelError(what, where=str(where), value=value or None, repair=repair)
