"""Checkpoints that are whole or not there, verified by hash, without pickle.

checkpoints/00000150/tensors.safetensors   model.* and optimizer.*
checkpoints/00000150/state.json            step, sha256 of the tensors; renamed into place as one
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recaster.core.errors import CheckpointError
from recaster.core.files import commit_directory, disk_full, read_json, storage_errors, write_json
from recaster.core.hashing import hash_file

_TENSORS, _STATE = "tensors.safetensors", "state.json"


def save_checkpoint(
    folder: Path, *, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, keep: int
) -> None:
    """Write the state after `step` completed steps, then drop all but the newest `keep`.

    Raises:
        StorageError: there is no room; the checkpoints before this one are untouched.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
    final = folder / f"{step:08d}"
    work = folder / f".{final.name}.work"
    shutil.rmtree(work, ignore_errors=True)
    with storage_errors(work):
        work.mkdir(parents=True)
        save_tensors(tensors, work / _TENSORS)
        write_json(work / _STATE, {"step": step, "sha256": hash_file(work / _TENSORS)})
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        commit_directory(work, final)
    for old in sorted(_found(folder))[:-keep]:
        shutil.rmtree(old)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        StorageError: there is no room.
    """
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:  # it wraps the operating system's error as text
        if "No space left" in str(error):
            raise disk_full(path) from error
        raise


def load_newest_checkpoint(
    folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, on_damage: Callable[[str], None]
) -> int:
    """Load the newest undamaged checkpoint into model and optimizer.

    Args:
        on_damage: told about each checkpoint that was passed over.

    Returns:
        Its step, 0 when there is none to load.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for path in sorted(_found(folder), reverse=True):
        if problem := _find_damage(path):
            damaged.append(f"{path.name}: {problem}")
            on_damage(f"checkpoint {path.name} is damaged ({problem}); using the one before it")
            continue
        return _load(path, model, optimizer)
    if damaged:
        raise CheckpointError(
            "All checkpoints are damaged.",
            where=str(folder),
            value="; ".join(damaged),
            repair="check the disk, remove this folder to train from the start",
        )
    return 0


def _found(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []


def _find_damage(path: Path) -> str:
    try:
        state: dict[str, Any] = read_json(path / _STATE)
        whole = hash_file(path / _TENSORS) == state["sha256"] and int(path.name) == state["step"]
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if whole else "its bytes are not those that were saved"


def _load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(path / _TENSORS)
    prefix = "model."
    model.load_state_dict(
        {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
    )
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            moments.setdefault(int(number), {})[key] = value
    state = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
    return int(path.name)
