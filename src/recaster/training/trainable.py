"""What training needs of a workload, and nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


class TrainingSet(Protocol):
    """One prepared split on this rank."""

    def __len__(self) -> int:
        """Samples in the split."""

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The sample ids of `rows`, for messages."""

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Inputs and targets of `rows`; with a seed augmented, each sample by (seed, its row) alone."""


class Trainable(Protocol):
    """The part of a workload that training ranks use."""

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The model of the plan, with fresh weights from torch's present random state."""

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        """The split `train` or `validation` of the prepared data in `folder`."""

    def loss_sum(self, logits: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
        """Loss summed over targets, nats, shape `()`."""

    def correct(self, logits: Tensor, targets: Tensor) -> int:
        """How many targets the model's best guess hits."""
