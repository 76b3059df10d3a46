"""Plots that show pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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

    guesses = probabilities.argmax(1)
    wrong = np.flatnonzero(guesses != targets)
    given = probabilities[wrong, targets[wrong]]
    worst = wrong[np.argsort(given, kind="stable")][: _COLUMNS * _ROWS]
    places = np.argsort(worst)
    pictures = load(worst[places])[np.argsort(places)]
    figure = Figure(figsize=(1.5 * _COLUMNS, 1.9 * _ROWS), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(targets)} wrong: truth / guess and its probability")
    for number, (row, picture) in enumerate(zip(worst.tolist(), pictures, strict=True)):
        axes = figure.add_subplot(_ROWS, _COLUMNS, number + 1)
        grey = picture.shape[2] == 1
        axes.imshow(picture[:, :, 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=1)
        axes.set_title(
            f"{labels[targets[row]]} /\n{labels[guesses[row]]} {probabilities[row, guesses[row]]:.2f}",
            fontsize=8,
        )
        axes.axis("off")
    figure.savefig(path, dpi=110)
