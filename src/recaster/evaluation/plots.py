"""Plots of one evaluation, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.metrics import confidences

_MOST_CLASSES, _UPRIGHT_CLASSES = 30, 10
"""That are drawn, and whose names stand upright below."""


def plot_confusion(matrix: NDArray[np.int64], labels: list[str], path: Path) -> None:
    """Draw the `(classes, classes)` matrix, a row a truth; of many classes those with the most errors."""
    from matplotlib.figure import Figure

    title = "Confusion on the held-out split"
    if len(labels) > _MOST_CLASSES:
        wrong = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
        chosen = np.sort(np.argsort(-wrong, kind="stable")[:_MOST_CLASSES])
        title += f",\nthe {_MOST_CLASSES} of {len(labels)} labels with the most errors"
        matrix, labels = matrix[np.ix_(chosen, chosen)], [labels[number] for number in chosen.tolist()]
    side = max(5.0, 0.3 * len(labels) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(np.log1p(matrix), cmap="Blues")
    axes.set(
        xticks=range(len(labels)),
        yticks=range(len(labels)),
        xticklabels=labels,
        yticklabels=labels,
        xlabel="guess",
        ylabel="truth",
        title=title,
    )
    if len(labels) > _UPRIGHT_CLASSES:
        axes.tick_params(axis="x", rotation=90)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            dark = count > matrix.max() / 4
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if dark else "black",
                fontsize=8,
            )
    figure.savefig(path, dpi=110)


def plot_reliability(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], bins: int, path: Path
) -> None:
    """Draw accuracy against confidence of the top guess, or of each of several labels."""
    from matplotlib.figure import Figure

    confidence, hit = confidences(probabilities, targets)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    used = [number for number in range(bins) if (index == number).any()]
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfectly calibrated")
    axes.plot(
        [confidence[index == number].mean() for number in used],
        [hit[index == number].mean() for number in used],
        marker="o",
        label="model",
    )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02), title="Reliability")
    axes.legend()
    figure.savefig(path, dpi=110)


def plot_training(records: list[dict[str, Any]], path: Path) -> None:
    """Draw training and validation loss over steps; of two networks that take turns, the loss of each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    parts = sorted({name for record in records for name in record if name.endswith("_loss")})
    lines = [("train", name) for name in parts or ["loss"]] + [("validation", "loss")]
    for kind, name in lines:
        chosen = [record for record in records if record["kind"] == kind and name in record]
        label = name.replace("_", " ") if parts and kind == "train" else kind
        axes.plot([record["step"] for record in chosen], [record[name] for record in chosen], label=label)
    # Losses of a game may be below zero.
    axes.set(
        xlabel="optimizer step",
        ylabel="loss" if parts else "loss (nats)",
        yscale="linear" if parts else "log",
        title="Training",
    )
    axes.legend()
    figure.savefig(path, dpi=110)
