"""Prepared pictures as training reads them: many rows at a time, augmented on request."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recaster.data.augmentation import Augmentation
from recaster.data.shards import Shard


class PictureSet:
    """One split of prepared pictures, augmented on request."""

    uniform = True
    lengths = None

    def __init__(self, shard: Shard, augmentation: Augmentation) -> None:
        self._shard, self._augmentation = shard, augmentation

    def __len__(self) -> int:
        """Pictures in the split."""
        return len(self._shard.labels)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of `rows`."""
        return [self._shard.ids[row] for row in rows.tolist()]

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Pictures `(rows, channels, height, width)` in 0..1, and labels `(rows,)`; with a seed augmented.

        Mixed pictures have the shares of their labels, `(rows, classes)`.
        """
        return self._load(rows) if seed is None else self._augmentation.batch(self._load, rows, seed)

    def _load(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self._shard.scaled(rows)), torch.from_numpy(self._shard.labels[rows])
