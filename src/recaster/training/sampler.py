"""Which samples a step takes: a function of (seed, epoch, step), so resuming needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Global batches over shuffled epochs; the last batch of an epoch may be smaller."""

    samples: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch."""
        return math.ceil(self.samples / self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All row numbers, shuffled for `epoch` (from 0)."""
        return np.random.default_rng(derive_seed(self.seed, "shuffle", epoch)).permutation(self.samples)

    def rows(self, order: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """The rows of the global batch at `step` (from 0) of the epoch with this `order`."""
        start = (step % self.steps_per_epoch) * self.batch_size
        return order[start : start + self.batch_size]
