"""Records to which none of the labels applies: told by a low probability of the best answer.

predictions   0.90 0.05 0.05  -0.40     probabilities of the labels, and by how much the best one is below
              0.30 0.35 0.35   0.15     the least that is accepted: above 0 is taken for out of scope
targets       0  -1

The largest probability as a score: Hendrycks and Gimpel, "A baseline for detecting misclassified and
out-of-distribution examples in neural networks", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import DataError
from recaster.core.targets import OUT_OF_SCOPE

Predictions = NDArray[np.float64]
"""`(rows, labels + 1)`, see the module's picture."""
Targets = NDArray[np.int64]


def check_scope(held_out: Targets, *, label: str) -> None:
    """Some of the held-out records are out of scope, and some are not.

    Raises:
        DataError: so that nothing can be measured.
    """
    if not 0 < (held_out == OUT_OF_SCOPE).sum() < len(held_out):
        raise DataError(
            "The held-out records are all in scope, or none is: nothing can be measured of that.",
            where="recipe key data.out_of_scope",
            value=f"{(held_out == OUT_OF_SCOPE).sum()} of {len(held_out)} are {label!r}",
            repair="add records of the other kind to the test split, or remove data.out_of_scope",
        )


def find_least_probability(probabilities: NDArray[np.float64], rate: float) -> float:
    """The largest one below which the best answer of at most `rate` of the rows lies.

    Args:
        probabilities: `(rows, labels)` of records with a label.
    """
    return float(np.quantile(probabilities.max(1), rate, method="lower"))


def add_scope(probabilities: NDArray[np.float64], least: float) -> Predictions:
    """The probabilities with the column that says by how much the best is below `least`."""
    return np.column_stack([probabilities, least - probabilities.max(1)])


def divide_scope(predictions: Predictions, targets: Targets) -> tuple[NDArray[np.float64], Targets]:
    """Probabilities and targets of the rows that have a label."""
    known = targets != OUT_OF_SCOPE
    return predictions[known, :-1], targets[known]


class InScope:
    """Makes functions of rows that have a label out of those that know no others.

    The rows of a sample are picked once for all functions that are asked about it in turn: they may be large.
    """

    def __init__(self) -> None:
        self._sample: tuple[Predictions, Targets] | None = None
        self._known: tuple[NDArray[np.float64], Targets]

    def of(
        self, function: Callable[[NDArray[np.float64], Targets], float]
    ) -> Callable[[Predictions, Targets], float]:
        """What `function` says of the rows that have a label."""
        return lambda predictions, targets: function(*self._divide(predictions, targets))

    def _divide(self, predictions: Predictions, targets: Targets) -> tuple[NDArray[np.float64], Targets]:
        if self._sample is None or self._sample[0] is not predictions or self._sample[1] is not targets:
            self._sample, self._known = (predictions, targets), divide_scope(predictions, targets)
        return self._known


def out_of_scope_auroc(predictions: Predictions, targets: Targets) -> float:
    """The chance that a row out of scope scores above one that has a label; ties count half.

    Not a number where one kind is missing, as in some draws of few rows.
    """
    outside = targets == OUT_OF_SCOPE
    out, known = predictions[outside, -1], np.sort(predictions[~outside, -1])
    if not len(out) or not len(known):
        return math.nan
    below = np.searchsorted(known, out, "left") + np.searchsorted(known, out, "right")
    return float(below.mean() / (2 * len(known)))


def out_of_scope_recall(predictions: Predictions, targets: Targets) -> float:
    """Share of the rows out of scope that are taken for that."""
    return float((predictions[targets == OUT_OF_SCOPE, -1] > 0).mean())


def in_scope_rejected(predictions: Predictions, targets: Targets) -> float:
    """Share of the rows with a label that are taken for out of scope."""
    return float((predictions[targets != OUT_OF_SCOPE, -1] > 0).mean())


def accuracy_after_rejection(predictions: Predictions, targets: Targets) -> float:
    """Share of the rows with a label that get it, and are not taken for out of scope."""
    known = targets != OUT_OF_SCOPE
    right = predictions[known, :-1].argmax(1) == targets[known]
    return float((right & (predictions[known, -1] <= 0)).mean())


SCOPE_METRICS: dict[str, Callable[[Predictions, Targets], float]] = {
    "out_of_scope_auroc": out_of_scope_auroc,
    "out_of_scope_recall": out_of_scope_recall,
    "in_scope_rejected": in_scope_rejected,
    "accuracy_after_rejection": accuracy_after_rejection,
}


def plot_scope(predictions: Predictions, targets: Targets, path: Path) -> None:
    """Draw how sure the model is of records with a label, and of those without, and where it refuses."""
    from matplotlib.figure import Figure

    best, outside = predictions[:, :-1].max(1), targets == OUT_OF_SCOPE
    least = float(np.mean(predictions[:, -1] + best))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    bins = np.linspace(0, 1, 41).tolist()
    for rows, name in ((~outside, "with a label"), (outside, "out of scope")):
        weights = np.full(int(rows.sum()), 1 / max(1, rows.sum()))
        axes.hist(best[rows], bins=bins, weights=weights, alpha=0.6, label=f"{name} ({rows.sum():,})")
    axes.axvline(least, color="black", linestyle="--", label=f"least that is accepted, {least:.3f}")
    axes.set(xlabel="probability of the best answer", ylabel="share", title="In scope and out of it")
    axes.legend()
    figure.savefig(path, dpi=110)
