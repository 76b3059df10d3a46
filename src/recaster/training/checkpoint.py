"""Checkpoints that are whole or not there, verified by hash, without pickle, for any strategy.

checkpoints/00000150/shard-00001-model-00001-of-00001.safetensors   each rank's parts, and where they belong
checkpoints/00000150/state.json                 step, sha256 of each file; renamed into place as one

torch.distributed.checkpoint writes and reads them by the names that parameters have in the whole
model, so that another strategy or number of ranks can go on from them. Of its formats we use the
safetensors one: its own `.distcp` keeps an index that is a pickle.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from recaster.core.errors import CheckpointError
from recaster.core.files import commit_directory, disk_full, read_json, storage_errors, write_json
from recaster.core.hashing import hash_file

_STATE = "state.json"
# One flat mapping of names to values, independent of how this rank groups its parameters.
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
_ALL_DAMAGED = -1


def save_checkpoint(
    folder: Path, *, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, keep: int
) -> None:
    """Write the state after `step` completed steps, then drop all but the newest `keep`.

    Every rank calls it, each with its share of the model.

    Raises:
        StorageError: the disk is full or refuses; the checkpoints before are kept.
    """
    final = folder / f"{step:08d}"
    work = folder / f".{final.name}.work"
    with storage_errors(folder):
        if _is_first_rank():
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
        _wait_for_all()
        _write(work, {**_model_tensors(model), **_optimizer_tensors(model, optimizer)})
        if _is_first_rank():
            hashes = {path.name: hash_file(path) for path in sorted(work.iterdir())}
            write_json(work / _STATE, {"step": step, "sha256": hashes})
            shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
            commit_directory(work, final)
            for old in sorted(_found(folder))[:-keep]:
                shutil.rmtree(old)


def load_newest_checkpoint(
    folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, on_damage: Callable[[str], None]
) -> int:
    """Load the newest undamaged checkpoint into model and optimizer, whatever strategy wrote it.

    Every rank calls it, each with its share of the model.

    Args:
        on_damage: told, on the first rank, about each checkpoint that was passed over.

    Returns:
        Its step, 0 when there is none to load.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    # One rank looks, so that all load the same one and the files are hashed once.
    step = _tell_all(_find_newest(folder, damaged, on_damage) if _is_first_rank() else 0)
    if step == _ALL_DAMAGED:
        raise CheckpointError(
            "All checkpoints are damaged.",
            where=str(folder),
            value="; ".join(damaged),
            repair="check the disk, remove this folder to train from the start",
        )
    if step:
        _load(folder / f"{step:08d}", model, optimizer)
    return step


def read_weights(folder: Path, *, step: int, model: nn.Module) -> dict[str, Tensor]:
    """The whole model's weights from the checkpoint of `step`, put together on this rank alone.

    Args:
        model: a whole model; its own weights are overwritten.
    """
    weights = model.state_dict()
    wanted = {f"model.{name}": value for name, value in weights.items()}
    dcp.load(wanted, storage_reader=HuggingFaceStorageReader(str(folder / f"{step:08d}")), no_dist=True)
    return weights


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": value for name, value in get_model_state_dict(model).items()}


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's moments; rates and the like come from the recipe and the step."""
    state = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    return {f"optimizer.{name}": value for name, value in state.items() if isinstance(value, Tensor)}


def _write(work: Path, tensors: dict[str, Tensor]) -> None:
    try:
        dcp.save(tensors, storage_writer=HuggingFaceStorageWriter(str(work), save_distributed=True))
    except CheckpointException as error:
        for cause, _ in error.failures.values():
            if isinstance(cause, OSError):
                raise cause from error
            if _has_no_room(cause):
                raise disk_full(work) from error
        raise


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one safetensors file.

    Raises:
        StorageError: there is no room.
    """
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:
        if _has_no_room(error):
            raise disk_full(path) from error
        raise


def _has_no_room(error: BaseException) -> bool:
    """safetensors wraps the operating system's error as text."""
    return "No space left" in str(error)


def _load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights, moments = _model_tensors(model), _optimizer_tensors(model, optimizer)
    dcp.load({**weights, **moments}, storage_reader=HuggingFaceStorageReader(str(path)))
    set_model_state_dict(model, {name.removeprefix("model."): value for name, value in weights.items()})
    state = get_optimizer_state_dict(model, optimizer, options=_FLAT)
    state.update({name.removeprefix("optimizer."): value for name, value in moments.items()})
    set_optimizer_state_dict(model, optimizer, state, options=_FLAT)


def _find_newest(folder: Path, damaged: list[str], on_damage: Callable[[str], None]) -> int:
    for path in sorted(_found(folder), reverse=True):
        problem = _find_damage(path)
        if not problem:
            return int(path.name)
        damaged.append(f"{path.name}: {problem}")
        on_damage(f"checkpoint {path.name} is damaged ({problem}); using the one before it")
    return _ALL_DAMAGED if damaged else 0


def _found(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []


def _find_damage(path: Path) -> str:
    try:
        state: dict[str, Any] = read_json(path / _STATE)
        whole = int(path.name) == state["step"] and all(
            hash_file(path / name) == wanted for name, wanted in state["sha256"].items()
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if whole else "its bytes are not those that were saved"


def _is_first_rank() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def _tell_all(step: int) -> int:
    """The first rank's `step`, on every rank."""
    if not dist.is_initialized():
        return step
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    told = torch.tensor(step, device=device)
    dist.broadcast(told, src=0)
    return int(told)
