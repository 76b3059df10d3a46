"""A few of a training's rows that stand for all: the heaviest pass, and steps from light to heavy.

Rows may differ in length, and batches are made of rows of like length; what a pass takes grows with its
elements, rows times the longest of them (of rows in parts, the longest parts). Where all rows are alike, an
element is a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recaster.training.micro_batches import Pass
from recaster.training.sampler import Sampler, count_elements
from recaster.training.trainable import TrainingSet, Weighted, read_batch

_MOST_STEPS = 4000
"""Of an epoch, that are looked at."""


class Excerpt:
    """Some rows of a training set, in their order; one row may be there more than once."""

    def __init__(self, data: TrainingSet, rows: NDArray[np.int64]) -> None:
        self._data, self._rows = data, rows
        self.uniform = data.uniform
        self.lengths = None if data.lengths is None else data.lengths[rows]

    def __len__(self) -> int:
        """Rows of the excerpt."""
        return len(self._rows)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """See `TrainingSet.ids`."""
        return self._data.ids(self._rows[rows])

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """See `TrainingSet.batch`."""
        return self._data.batch(self._rows[rows], seed=seed)

    def batch_on(
        self, device: torch.device, rows: NDArray[np.int64], *, seed: int | None
    ) -> tuple[Tensor, Tensor]:
        """See `OnDevice.batch_on`."""
        return read_batch(self._data, device, self._rows[rows], seed=seed)


class _WeightedExcerpt(Excerpt):
    """Of rows with unequal numbers of targets."""

    def __init__(self, data: Any, rows: NDArray[np.int64]) -> None:
        super().__init__(data, rows)
        self._count: Callable[[NDArray[np.int64]], int] = data.targets_in

    def targets_in(self, rows: NDArray[np.int64]) -> int:
        """See `Weighted.targets_in`."""
        return self._count(self._rows[rows])


def cut_out(data: TrainingSet, rows: NDArray[np.int64]) -> Excerpt:
    """The excerpt of `rows`."""
    return (_WeightedExcerpt if isinstance(data, Weighted) else Excerpt)(data, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochWork:
    """The elements of an epoch's steps, in their order."""

    steps: NDArray[np.int64]
    """Of all passes of each step on this rank, `(steps,)`."""
    largest: NDArray[np.int64]
    """Of each step's largest pass, `(steps,)`."""


def measure_epoch(
    sampler: Sampler, lengths: NDArray[np.int64] | None, cut: Callable[[NDArray[np.int64]], list[Pass]]
) -> EpochWork:
    """What the steps of the first epoch are made of; of very long ones, its first steps.

    Args:
        cut: this rank's passes over the rows of a step.
    """
    order = sampler.order(0)
    sizes = [
        [_count(one.rows, lengths) for one in cut(sampler.rows(order, step))]
        for step in range(min(_MOST_STEPS, sampler.steps_per_epoch))
    ]
    return EpochWork(
        steps=np.array([sum(step) for step in sizes], dtype=np.int64),
        largest=np.array([max(step) for step in sizes], dtype=np.int64),
    )


def measure_passes(lengths: NDArray[np.int64] | None, *, rows: int, together: int) -> int:
    """The elements of `rows` rows in their order, read `together` at a time."""
    return sum(
        _count(np.arange(start, min(start + together, rows)), lengths) for start in range(0, rows, together)
    )


def _count(rows: NDArray[np.int64], lengths: NDArray[np.int64] | None) -> int:
    return len(rows) if lengths is None else count_elements(lengths[rows])


def pick_heaviest(
    sampler: Sampler, lengths: NDArray[np.int64] | None, work: EpochWork, count: int
) -> NDArray[np.int64]:
    """`count` rows of the step with the largest pass, the longest first."""
    rows = sampler.rows(sampler.order(0), int(work.largest.argmax()))
    ranked = rows if lengths is None else rows[np.argsort(-_total(lengths[rows]), kind="stable")]
    return np.resize(ranked, count)


def pick_steps(sampler: Sampler, work: EpochWork, *, steps: int, batch_size: int) -> NDArray[np.int64]:
    """The rows of `steps` steps of `batch_size` rows, from the lightest to the heaviest."""
    order = sampler.order(0)
    ranked = np.argsort(work.steps, kind="stable")
    # The step with the largest pass is one of them, whatever its other passes are.
    chosen = [*ranked[np.linspace(0, len(ranked) - 1, steps).astype(np.int64)][:-1], work.largest.argmax()]
    return np.concatenate([np.resize(sampler.rows(order, int(step)), batch_size) for step in chosen])


def pick_longest(lengths: NDArray[np.int64] | None, *, rows: int, count: int) -> NDArray[np.int64]:
    """`count` of the numbers up to `rows`, spread over all of them, the longest row among them."""
    chosen = np.linspace(0, rows - 1, count).astype(np.int64)
    if lengths is not None:
        chosen[0] = _total(lengths).argmax()
    return chosen


def _total(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each row, all its parts together, `(rows,)`."""
    totals: NDArray[np.int64] = lengths.reshape(len(lengths), -1).sum(1)
    return totals
