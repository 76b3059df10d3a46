"""How much disk a training takes, known from its model before the first step.

keep_checkpoints finished ones + the one in writing + the weights that come out
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from recaster.core.errors import ResourceError
from recaster.core.files import free_bytes
from recaster.customization.build import count_parameters, rests_on_base
from recaster.training.checkpoint import trained_tensors, whole_state
from recaster.training.turns import averaged_parameters

_MOMENTS = {
    "adamw": 2,
    "adam": 2,
    "nadam": 2,
    "radam": 2,
    "adamax": 2,
    "adadelta": 2,
    "adagrad": 1,
    "asgd": 1,
    "muon": 1,
    "adafactor": 0,
    "lazy-adam": 2,
}
"""Tensors as large as the weights that each update rule keeps; muon has two for what is no matrix, and
adafactor rows and columns only."""
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSize:
    """How large a model is, and what its training keeps."""

    parameters: int
    trained: int
    """Parameters that are not frozen."""
    weights_bytes: int
    """Of the whole model."""
    result_bytes: int
    """Of the weights that training leaves: those that no base has."""
    checkpoint_bytes: int
    """About: trained weights, moments and averages of all ranks together. What a lossy communication
    scheme remembers comes on top."""


def measure_state(model: nn.Module, plan: dict[str, Any]) -> StateSize:
    """The sizes of a whole `model` in which what is frozen is marked so."""
    train = plan["train"]
    trained = [value for value in model.parameters() if value.requires_grad]
    weights = sum(value.nbytes for value in whole_state(model).values())
    saved = sum(value.nbytes for value in trained_tensors(model).values())
    averages = averaged_parameters(model).values() if train["ema_decay"] is not None else ()
    moments = _count_moments(train["optimizer"]) * sum(value.nbytes for value in trained)
    parameters, changed = count_parameters(model)
    return StateSize(
        parameters=parameters,
        trained=changed,
        weights_bytes=weights,
        result_bytes=saved if rests_on_base(plan) else weights,
        checkpoint_bytes=saved + moments + sum(value.nbytes for value in averages),
    )


def _count_moments(section: Mapping[str, Any]) -> int:
    if section["name"] in {"sgd", "rmsprop"}:
        return int(section["momentum"] > 0) + int(section["name"] == "rmsprop")
    return _MOMENTS[section["name"]]


def require_room(folder: Path, size: StateSize, *, keep: int) -> None:
    """Refuse a training whose checkpoints the disk under `folder` cannot hold.

    Args:
        folder: of the checkpoints; those that are there already count.
        keep: finished checkpoints that are kept.

    Raises:
        ResourceError: with the numbers, and what would fit.
    """
    present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free, checkpoint, weights = free_bytes(folder) + present, size.checkpoint_bytes, size.result_bytes
    needed = (keep + 1) * checkpoint + weights
    if needed <= free:
        return
    fits = (free - weights) // checkpoint - 1
    smaller = f"set train.keep_checkpoints to {fits}, " if fits >= 2 else ""
    raise ResourceError(
        "Too little disk for this training's checkpoints; no step was taken.",
        where=str(folder),
        value=f"{keep} checkpoints, one in writing ({checkpoint / _MIB:.1f} MiB each) and weights of "
        f"{weights / _MIB:.1f} MiB need {needed / _MIB:.1f} MiB; {free / _MIB:.1f} MiB free",
        repair=f"{smaller}free some space, or set RECASTER_HOME to a folder on a larger disk, and run again",
    )
