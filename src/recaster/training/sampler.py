"""Which samples a step takes: a function of (seed, epoch, step), so resuming needs no state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed

_WINDOW_BATCHES, _WINDOW_BATCHES_OF_PAIRS = 50, 400
"""How many shuffled batches' samples are ordered by length together: two lengths want more to choose from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Global batches over shuffled epochs; the last batch of an epoch may be smaller."""

    samples: int
    batch_size: int
    seed: int
    lengths: NDArray[np.int64] | None = None
    """Of each sample `(samples,)`, or of its parts, each of which is filled up by itself `(samples, parts)`;
    batches are then made of samples of like length, so that little is filled up."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch."""
        return math.ceil(self.samples / self.batch_size)

    @property
    def filled_up(self) -> float:
        """Share of the first epoch's tokens that only fill rows up to their batch's longest."""
        if self.lengths is None:
            return 0.0
        order = self.order(0)
        steps = range(self.steps_per_epoch)
        padded = sum(count_elements(self.lengths[self.rows(order, step)]) for step in steps)
        return 1.0 - float(self.lengths.sum()) / padded

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All row numbers, shuffled for `epoch` (from 0)."""
        random = np.random.default_rng(derive_seed(self.seed, "shuffle", epoch))
        order = random.permutation(self.samples)
        return order if self.lengths is None else self._bucketed(order, self.lengths, random)

    def _bucketed(
        self, order: NDArray[np.int64], lengths: NDArray[np.int64], random: np.random.Generator
    ) -> NDArray[np.int64]:
        """Sort by length within windows of the shuffled order, then shuffle whole batches.

        What does not fill a batch stays at the end, where the epoch's smaller batch is.
        """
        whole = self.samples - self.samples % self.batch_size
        window = (_WINDOW_BATCHES if lengths.ndim == 1 else _WINDOW_BATCHES_OF_PAIRS) * self.batch_size
        pieces = [order[start : min(start + window, whole)] for start in range(0, whole, window)]
        ranked = [self._rank(piece, lengths) for piece in pieces]
        batches = np.concatenate([*ranked, order[:0]]).reshape(-1, self.batch_size)
        return np.concatenate([batches[random.permutation(len(batches))].ravel(), order[whole:]])

    def _rank(self, rows: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """`rows` in order of length; of two parts, in runs of like second parts by their first parts."""
        if lengths.ndim == 1:
            return rows[np.argsort(lengths[rows], kind="stable")]
        ranked = rows[np.argsort(lengths[rows, -1], kind="stable")]
        run = self.batch_size * math.ceil(math.sqrt(len(rows) / self.batch_size))
        runs = [ranked[start : start + run] for start in range(0, len(rows), run)]
        return np.concatenate([one[np.argsort(lengths[one, 0], kind="stable")] for one in runs] or [ranked])

    def rows(self, order: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """The rows of the global batch at `step` (from 0) of the epoch with this `order`."""
        start = (step % self.steps_per_epoch) * self.batch_size
        return order[start : start + self.batch_size]


def count_elements(lengths: NDArray[np.int64]) -> int:
    """What samples take that are filled up together: the longest one, or the longest parts, times them.

    Args:
        lengths: `(samples,)` or `(samples, parts)`.
    """
    return len(lengths) * int(np.sum(lengths.max(axis=0)))
