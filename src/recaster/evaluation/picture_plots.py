"""Plots that show pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.metrics import TOLD

_COLUMNS, _ROWS = 6, 4


def plot_worst_errors(
    load: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    probabilities: NDArray[np.float64],
    targets: NDArray[np.int64],
    labels: list[str],
    path: Path,
) -> None:
    """Draw the wrongly labelled pictures whose own label was given the least probability, the worst first.

    Args:
        load: from row numbers, ascending, to pictures `(rows, height, width, channels)` in 0..1.
    """
    from matplotlib.figure import Figure

    wrong, given = _find_errors(probabilities, targets)
    worst = wrong[np.argsort(given, kind="stable")][: _COLUMNS * _ROWS]
    places = np.argsort(worst)
    pictures = load(worst[places])[np.argsort(places)]
    figure = Figure(figsize=(1.5 * _COLUMNS, 1.9 * _ROWS), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(targets)} wrong: truth / guess and its probability")
    for number, (row, picture) in enumerate(zip(worst.tolist(), pictures, strict=True)):
        axes = figure.add_subplot(_ROWS, _COLUMNS, number + 1)
        grey = picture.shape[2] == 1
        axes.imshow(picture[:, :, 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=1)
        axes.set_title(_compare(probabilities[row], targets[row], labels), fontsize=8)
        axes.axis("off")
    figure.savefig(path, dpi=110)


def _find_errors(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers of the rows with a wrong answer, and the probability that each gave to its right one."""
    if targets.ndim == 2:
        right = np.where(targets > 0, probabilities, 1 - probabilities)
        wrong = np.flatnonzero(((probabilities >= TOLD) != (targets > 0)).any(1))
        return wrong, right[wrong].prod(1)
    wrong = np.flatnonzero(probabilities.argmax(1) != targets)
    return wrong, probabilities[wrong, targets[wrong]]


def _compare(probabilities: NDArray[np.float64], target: NDArray[np.int64], labels: list[str]) -> str:
    """What a row is, and what is told of it; of several labels the names alone."""
    if target.ndim:
        has, told = (np.flatnonzero(given).tolist() for given in (target, probabilities >= TOLD))
        return " /\n".join(", ".join(labels[number] for number in given) or "none" for given in (has, told))
    guess = int(probabilities.argmax())
    return f"{labels[int(target)]} /\n{labels[guess]} {probabilities[guess]:.2f}"
