"""What training needs of a workload, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.data.sending import send_to
from recaster.models.losses import LossSum


class TrainingSet(Protocol):
    """One prepared split on this rank."""

    @property
    def uniform(self) -> bool:
        """Whether all rows have one shape, so that many steps' rows can be read by one call and cut."""

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """Of each row `(rows,)`, or of its parts `(rows, parts)`, where rows of like length are better read
        together; None where all are alike.
        """

    def __len__(self) -> int:
        """Samples in the split."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The sample ids of `rows`, for messages."""

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Inputs and targets of `rows`; with a seed augmented, each sample by (seed, its row) alone.

        It is called from another thread than the one that trains.
        """


@runtime_checkable
class OnDevice(Protocol):
    """A training set that makes its random changes on the device that trains."""

    def batch_on(
        self, device: torch.device, rows: NDArray[np.int64], *, seed: int | None
    ) -> tuple[Tensor, Tensor]:
        """What `TrainingSet.batch` gives, on `device`."""


@runtime_checkable
class Weighted(Protocol):
    """A training set whose rows have unequal numbers of targets, as texts have learned tokens."""

    def targets_in(self, rows: NDArray[np.int64]) -> int:
        """Targets that count in `rows`, at least one in each row."""


@runtime_checkable
class Sketching(Protocol):
    """A workload whose models make things that people want to see while they train."""

    def sketch(self, model: nn.Module, plan: dict[str, Any]) -> Tensor:
        """A few of them, by the model in evaluation mode; the same requests each time."""


@runtime_checkable
class Watched(Protocol):
    """A workload that knows of failures in which all numbers stay finite."""

    def check_health(self, validations: Sequence[Mapping[str, Any]], train: Mapping[str, Any]) -> None:
        """Look at the journal's validations so far, a function of which decides.

        Raises:
            CollapsedError: training further is not worth its time.
        """


def read_batch(
    data: TrainingSet, device: torch.device, rows: NDArray[np.int64], *, seed: int | None
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of `rows` on `device`, changed there or, by a set that cannot, on the processor."""
    if device.type != "cpu" and isinstance(data, OnDevice):
        return data.batch_on(device, rows, seed=seed)
    inputs, targets = data.batch(rows, seed=seed)
    return send_to(device, inputs), send_to(device, targets)


def target_counter(data: TrainingSet) -> Callable[[NDArray[np.int64]], int]:
    """How many targets count in some rows, by which losses are divided: the rows, unless it is weighted."""
    return data.targets_in if isinstance(data, Weighted) else len


class Trainable(Protocol):
    """The part of a workload that training ranks use."""

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The model of the plan: weights of its base, and fresh ones from torch's present random state."""

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        """The split `train` or `validation` of the prepared data in `folder`."""

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """The loss of the plan's `train.loss`, summed over targets, shape `()`; smoothed only in training."""

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """How many targets that count the model's best guess hits, shape `()`."""
