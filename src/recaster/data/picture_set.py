"""Prepared pictures as training reads them: many rows at a time, augmented on request.

8 bits a pixel go to the device that trains; scaling and random changes are made there.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recaster.data.augmentation import Augmentation
from recaster.data.sending import PROCESSOR, send_to
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
        return self.batch_on(PROCESSOR, rows, seed=seed)

    def batch_on(
        self, device: torch.device, rows: NDArray[np.int64], *, seed: int | None
    ) -> tuple[Tensor, Tensor]:
        """What `batch` gives, made on `device`."""
        load = partial(self._load, device)
        return load(rows) if seed is None else self._augmentation.batch(load, rows, seed)

    def _load(self, device: torch.device, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        shard = self._shard
        pictures = send_to(device, torch.from_numpy(np.asarray(shard.images[rows]))).float()
        scaled = pictures.sub_(shard.minimum).div_(shard.maximum - shard.minimum)
        return scaled, send_to(device, torch.from_numpy(shard.labels[rows]))
