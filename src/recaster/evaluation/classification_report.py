"""What people look at after a classifier's evaluation: plots, and a row a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recaster.core.files import write_json
from recaster.evaluation.metrics import Probabilities, Targets, class_table, confusion_matrix
from recaster.evaluation.plots import plot_confusion, plot_reliability
from recaster.recipe.schema import Recipe


def report_classes(
    recipe: Recipe, probabilities: Probabilities, targets: Targets, folder: Path
) -> dict[str, Any]:
    """Write `reliability.png`, and of one label a row `confusion.png` and `confusion.json`.

    Returns:
        The table of classes.
    """
    labels = recipe.data.labels
    if targets.ndim == 1:
        matrix = confusion_matrix(probabilities, targets)
        plot_confusion(matrix, labels, folder / "confusion.png")
        write_json(folder / "confusion.json", matrix.tolist())
    plot_reliability(probabilities, targets, recipe.evaluate.calibration_bins, folder / "reliability.png")
    return {"classes": class_table(probabilities, targets, labels)}
