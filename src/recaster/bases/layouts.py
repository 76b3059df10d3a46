"""From the files as they came to the canonical folder: safetensors, config.json, tokenizer, no pickle.

kind          config.json                                       beside model.safetensors
transformers  as published, with model_type                     tokenizer, chat template, processor
torch         {"architecture": …, "arguments": {…}}             nothing
vectors       {"architecture": "static-vectors", "arguments":   tokenizer.json
               {"tensor": …, "rows": …, "dimensions": …}}
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from recaster.bases.checks import (
    INDEX,
    check_architecture,
    check_vocabulary,
    read_object,
    read_tensors,
    refuse_code,
)
from recaster.bases.convert import convert_gguf, convert_pickle
from recaster.bases.safetensors_header import TensorHead, read_header
from recaster.bases.torch_states import check_configuration, recognise_state
from recaster.bases.weight_files import PICKLES, choose_beside, choose_weights
from recaster.core.errors import BaseModelError
from recaster.core.files import write_json

Kind = Literal["transformers", "torch", "vectors"]
Place = Callable[[Path, Path], None]
WEIGHTS = "model.safetensors"
COMPANIONS = ("discriminator.safetensors",)
"""Weights of a second network that an artifact of ours has beside the model's, to train both further."""


def move_file(source: Path, target: Path) -> None:
    """Rename `source` to `target`: for files unpacked for this folder alone."""
    source.replace(target)


def link_file(source: Path, target: Path) -> None:
    """Hard-link where possible, else copy: for cached files, which nobody edits."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def copy_file(source: Path, target: Path) -> None:
    """Copy: for a folder of the user's, whose files may be written again in place."""
    shutil.copyfile(source, target)


def arrange(
    raw: Path, names: Sequence[str], folder: Path, *, place: Place, say: Callable[[str], None]
) -> tuple[Kind, str]:
    """Fill `folder` from the files `names` below `raw`, checked; return its kind and architecture.

    Raises:
        BaseModelError: files are missing, damaged or unsafe, or of an unknown architecture.
    """
    weights = choose_weights(names, where=str(raw))
    refuse_code(raw)
    if weights[0].endswith(".gguf"):
        say(f"reading {weights[0]} through transformers, writing float32 safetensors (about a minute)")
        convert_gguf(raw / weights[0], folder)
        return _finish_transformers(folder)
    config = read_object(raw / "config.json") if (raw / "config.json").exists() else None
    if config is not None and "model_type" not in config and "architecture" not in config:
        raise BaseModelError(
            "The configuration names no architecture.",
            where=str(raw / "config.json"),
            value=", ".join(sorted(config)[:10]),
            repair="add model_type (transformers) or architecture",
        )
    _place_weights(raw, weights, folder, place)
    beside = choose_beside(names)
    if config is not None and "model_type" in config:
        _place_all(raw, beside, folder, place)
        return _finish_transformers(folder)
    if config is not None:
        _place_all(raw, [*beside, *_companions(raw, names)], folder, place)
        read_tensors(folder)
        return "torch", check_configuration(config, raw / "config.json")
    tensors = read_tensors(folder)
    if tokenizer := _find_tokenizer(raw, beside):
        return _finish_vectors(raw / tokenizer, tensors, folder, place)
    found = recognise_state(tensors, folder / WEIGHTS)
    write_json(folder / "config.json", found)
    return "torch", str(found["architecture"])


def _companions(raw: Path, names: Sequence[str]) -> list[str]:
    found = [name for name in COMPANIONS if name in names]
    for name in found:
        read_header(raw / name)
    return found


def _place_weights(raw: Path, weights: Sequence[str], folder: Path, place: Place) -> None:
    if weights[0].endswith(PICKLES):
        if len(weights) > 1:
            raise BaseModelError(
                "The weights are pickles in several shards, which are not read.",
                where=str(raw),
                value=", ".join(weights),
                repair="use the model's safetensors files, or save it as such",
            )
        convert_pickle(raw / weights[0], folder / WEIGHTS)
        return
    if len(weights) == 1:
        read_header(raw / weights[0])
        place(raw / weights[0], folder / WEIGHTS)
        return
    _place_all(raw, weights, folder, place)


def _place_all(raw: Path, names: Sequence[str], folder: Path, place: Place) -> None:
    sharded = not (folder / WEIGHTS).exists()
    for name in names:
        # An index beside one whole file speaks of shards that are not here.
        if name.endswith(".index.json") and not (sharded and name == INDEX):
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        place(raw / name, folder / name)


def _finish_transformers(folder: Path) -> tuple[Kind, str]:
    architecture = check_architecture(folder)
    read_tensors(folder)
    check_vocabulary(folder)
    return "transformers", architecture


def _find_tokenizer(raw: Path, beside: Sequence[str]) -> str | None:
    """The one file of the tokenizers library; its name alone does not tell it from a mere configuration."""
    for name in beside:
        if "tokenizer" in PurePosixPath(name).name and name.endswith(".json"):
            tree = read_object(raw / name)
            if "model" in tree and "added_tokens" in tree:
                return name
    return None


def _finish_vectors(
    tokenizer: Path, tensors: dict[str, TensorHead], folder: Path, place: Place
) -> tuple[Kind, str]:
    ((name, head), *others) = tensors.items()
    if others or len(head.shape) != 2:
        raise BaseModelError(
            "The architecture is unknown: no config.json, and the weights are no single table of vectors.",
            where=str(folder / WEIGHTS),
            value=", ".join(f"{key} {list(value.shape)}" for key, value in list(tensors.items())[:5]),
            repair="use a folder with config.json",
        )
    place(tokenizer, folder / "tokenizer.json")
    rows, dimensions = head.shape
    arguments = {"tensor": name, "rows": rows, "dimensions": dimensions}
    write_json(
        folder / "config.json",
        {"architecture": "static-vectors", "arguments": arguments, "vocab_size": rows},
    )
    check_vocabulary(folder)
    return "vectors", "static-vectors"
