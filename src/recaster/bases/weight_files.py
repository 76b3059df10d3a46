"""Which files of a model's folder are its weights, and which belong beside them.

safetensors before pickles before GGUF: the first is the only one that cannot carry code. Python files
are never taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from recaster.core.errors import BaseModelError

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
_BESIDE = {".json", ".txt", ".model", ".spm", ".jinja", ".md", ""}
_OURS = ("base.json", "manifest.json")  # of a folder that was fetched or exported by Recaster
# sentence-transformers keeps its pooling's configuration in numbered folders.
_POOLING = re.compile(r"\d+_\w+/config\.json")
_TOKENIZER_APART = re.compile(r"[^/]*/[^/]*tokenizer[^/]*\.json")


def choose_weights(names: Iterable[str], *, where: str) -> list[str]:
    """The weight files among a folder's files, of the uppermost level that has some: one, or a set of shards.

    Raises:
        BaseModelError: there are none, only an adapter's, or several sets and no telling which.
    """
    ordered = sorted(names, key=lambda name: (name.count("/"), name))
    for suffixes in ((".safetensors",), PICKLES, (".gguf",)):
        found = [name for name in ordered if PurePosixPath(name).suffix in suffixes and _is_weights(name)]
        found = [name for name in found if name.count("/") == found[0].count("/")]
        if not found:
            continue
        sets: dict[str, list[str]] = {}
        for name in found:
            sets.setdefault(_SHARD.sub(r"\1\2", name), []).append(name)
        if named := next((sets[name] for name in _WHOLE if name in sets), None):
            return [name for name in named if name in _WHOLE] or named
        if len(sets) == 1:
            return found
        raise BaseModelError(
            "The folder holds several weight files, and nothing says which is the model's.",
            where=where,
            value=", ".join(found),
            repair="name a folder or file that holds one model",
        )
    adapter = "adapter_config.json" in ordered
    raise BaseModelError(
        "This is an adapter, not a base model." if adapter else "There are no weights.",
        where=where,
        value=", ".join(ordered[:20]) or "an empty folder",
        repair="name the adapter's base model" if adapter else "name a folder with .safetensors files",
    )


def _is_weights(name: str) -> bool:
    file = PurePosixPath(name).name
    return not file.startswith(("adapter_model", "training_args", "optimizer", "scheduler", "rng_state"))


def choose_beside(names: Iterable[str]) -> list[str]:
    """Configuration, tokenizer, processor, card and licence files among a folder's files."""
    return sorted(
        name
        for name in names
        if name not in _OURS
        and (
            _POOLING.fullmatch(name)
            or _TOKENIZER_APART.fullmatch(name)
            or ("/" not in name and PurePosixPath(name).suffix in _BESIDE and not name.startswith("."))
        )
    )
