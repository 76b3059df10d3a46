"""Checkpoints that are whole or not there, verified by hash, without pickle, for any strategy.

checkpoints/00000150/shard-00001-model-00001-of-00001.safetensors   each rank's parts, and where they belong
checkpoints/00000150/memory-00001.safetensors   what only rank 1 must know to go on (error feedback …)
checkpoints/00000150/state.json                 step, sha256 of each file; renamed into place as one

torch.distributed.checkpoint writes and reads the parts by the names that parameters have in the whole
model, so that another strategy or number of ranks can go on from them. Of its formats we use the
safetensors one: its own `.distcp` keeps an index that is a pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from recaster.core.errors import CheckpointError
from recaster.core.files import read_json
from recaster.core.hashing import hash_file

STATE = "state.json"
# One flat mapping of names to values, independent of how this rank groups its parameters.
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)
# What is not trained is made again from the base, or from the seed.
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
_ALL_DAMAGED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Everything that a step leaves for the next; frozen parameters are left out."""

    module: nn.Module
    """This rank's share."""
    optimizers: Sequence[Optimizer]
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """The same on all ranks, or shared like the module's parameters: averages, the loss's scale."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it under the names in the file."""
        weights, kept = get_model_state_dict(self.module, options=_TRAINED), _trained_names(self.module)
        return {
            **{f"model.{name}": value for name, value in weights.items() if name in kept},
            **self._moments(),
            **self.extra,
        }

    def load(self, path: Path) -> None:
        """Take all of it from the checkpoint at `path`."""
        tensors = self.tensors()
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(path)))
        weights = {name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")}
        set_model_state_dict(self.module, weights, options=_TRAINED)
        if not self.optimizers:
            return
        state = get_optimizer_state_dict(self.module, self.optimizers, options=_FLAT)
        state.update(
            {
                name.removeprefix("optimizer."): v
                for name, v in tensors.items()
                if name.startswith("optimizer.")
            }
        )
        set_optimizer_state_dict(self.module, self.optimizers, state, options=_FLAT)
        for name, value in self.extra.items():
            value.copy_(tensors[name])

    def _moments(self) -> dict[str, Tensor]:
        """The optimizers' moments; rates and the like come from the recipe and the step."""
        if not self.optimizers:
            return {}
        state = get_optimizer_state_dict(self.module, self.optimizers, options=_FLAT)
        return {f"optimizer.{name}": value for name, value in state.items() if isinstance(value, Tensor)}


def load_newest_checkpoint(folder: Path, saved: Saved, *, on_damage: Callable[[str], None]) -> int:
    """Load the newest undamaged checkpoint into `saved`, whatever strategy wrote it.

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
    step = _tell_all(_find_newest(folder, damaged, on_damage) if is_first_rank() else 0)
    if step == _ALL_DAMAGED:
        raise CheckpointError(
            "All checkpoints are damaged.",
            where=str(folder),
            value="; ".join(damaged),
            repair="check the disk, remove this folder to train from the start",
        )
    if step:
        saved.load(checkpoint_path(folder, step))
    return step


def load_memory(folder: Path, step: int) -> dict[str, Tensor] | None:
    """What this rank alone kept at `step`; None when another number of ranks saved it."""
    path = checkpoint_path(folder, step)
    if read_json(path / STATE)["ranks"] != dist.get_world_size():
        return None
    file = path / memory_name(dist.get_rank())
    return load_file(file) if file.exists() else {}


def read_weights(
    folder: Path, *, step: int, model: nn.Module, averages: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The trained weights of a whole model from the checkpoint of `step`, put together on this rank alone.

    Args:
        model: a whole model, frozen where it was; its own weights are overwritten.
        averages: names of parameters to take from the moving average.
    """
    weights = trained_tensors(model)
    averaged = set(averages)
    wanted = {
        f"average.{name}" if name in averaged else f"model.{name}": value for name, value in weights.items()
    }
    reader = HuggingFaceStorageReader(str(checkpoint_path(folder, step)))
    dcp.load(wanted, storage_reader=reader, no_dist=True)
    return weights


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state of a whole `model` without its frozen parameters: the parameters' own memory."""
    kept = _trained_names(model)
    return {name: value for name, value in model.state_dict().items() if name in kept}


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of `model`, frozen or not, with shared parameters under their first name alone."""
    first = {name for name, _ in model.named_parameters()}
    further = {name for name, _ in model.named_parameters(remove_duplicate=False)} - first
    return {name: value for name, value in model.state_dict().items() if name not in further}


def _trained_names(module: nn.Module) -> set[str]:
    """Buffers and trained parameters; a shared one, such as tied embeddings, by its first name alone."""
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    return trained | {name for name, _ in module.named_buffers()}


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is."""
    return folder / f"{step:08d}"


def memory_name(rank: int) -> str:
    """The file of what only `rank` must know."""
    return f"memory-{rank:05d}.safetensors"


def find_checkpoints(folder: Path) -> list[Path]:
    """All finished ones, oldest first."""
    found = [path for path in folder.iterdir() if path.name.isdigit()] if folder.exists() else []
    return sorted(found)


def is_first_rank() -> bool:
    """Whether this rank does what is done once."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _find_newest(folder: Path, damaged: list[str], on_damage: Callable[[str], None]) -> int:
    for path in reversed(find_checkpoints(folder)):
        problem = _find_damage(path)
        if not problem:
            return int(path.name)
        damaged.append(f"{path.name}: {problem}")
        on_damage(f"checkpoint {path.name} is damaged ({problem}); using the one before it")
    return _ALL_DAMAGED if damaged else 0


def _find_damage(path: Path) -> str:
    try:
        state: dict[str, Any] = read_json(path / STATE)
        whole = int(path.name) == state["step"] and all(
            hash_file(path / name) == wanted for name, wanted in state["sha256"].items()
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if whole else "its bytes are not those that were saved"


def _tell_all(step: int) -> int:
    """The first rank's `step`, on every rank."""
    if not dist.is_initialized():
        return step
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    told = torch.tensor(step, device=device)
    dist.broadcast(told, src=0)
    return int(told)
