"""Plots that show pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.picture_grid import PictureGrid
from recaster.evaluation.worst_errors import compare, find_worst

_COLUMNS, _ROWS = 6, 4


def plot_worst_errors(
    *,
    load: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    explain: Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]],
    probabilities: NDArray[np.float64],
    targets: NDArray[np.int64],
    labels: list[str],
    path: Path,
) -> None:
    """Draw the wrongly answered pictures, the worst first, each beside where its answer comes from.

    Args:
        load: from row numbers, ascending, to pictures `(rows, height, width, channels)` in 0..1.
        explain: from pictures and class numbers to maps `(rows, height, width)` in 0..1.
    """
    worst, classes = find_worst(probabilities, targets, most=_COLUMNS * _ROWS)
    places = np.argsort(worst)
    pictures = load(worst[places])[np.argsort(places)]
    maps = explain(pictures, classes) if len(worst) else np.empty((0, 0, 0), dtype=np.float32)
    grid = PictureGrid(
        columns=_COLUMNS,
        rows=_ROWS,
        cell=(2.4, 1.65),
        lines=2,
        title="The worst errors: truth / answer and its probability; right, what the answer rests on",
    )
    for row, picture, shown in zip(worst.tolist(), pictures, maps, strict=True):
        colour = np.repeat(picture, 3 // picture.shape[2], axis=2)
        gap = np.ones((len(colour), max(1, colour.shape[1] // 16), 3), dtype=np.float32)
        pair = np.concatenate([colour, gap, _overlay(colour, shown)], axis=1)
        grid.add(pair, compare(probabilities[row], targets[row], labels))
    grid.save(path)


def _overlay(picture: NDArray[np.float32], shown: NDArray[np.float32]) -> NDArray[np.float32]:
    """A grey picture, `(height, width, 3)`, made red where `shown` is high."""
    grey = np.repeat(picture.mean(2, keepdims=True), 3, axis=2)
    share = 0.7 * shown[:, :, None]
    red: NDArray[np.float32] = (1 - share) * grey + share * np.array([1, 0, 0], dtype=np.float32)
    return red
