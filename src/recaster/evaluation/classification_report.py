"""What people look at after a classifier's evaluation: plots, and a row a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recaster.core.files import write_json
from recaster.evaluation.metrics import (
    Probabilities,
    Targets,
    accuracy,
    class_table,
    confusion_matrix,
    macro_f1,
    measure,
)
from recaster.evaluation.plots import plot_confusion, plot_reliability
from recaster.evaluation.slices import measure_slices, plot_slices
from recaster.recipe.schema import Recipe

_OF_SLICES = {"accuracy": accuracy, "macro_f1": macro_f1}


def report_classes(
    recipe: Recipe,
    probabilities: Probabilities,
    targets: Targets,
    folder: Path,
    *,
    slices: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Write `reliability.png` and `slices.png`, and of one label a row `confusion.png` and `confusion.json`.

    Args:
        slices: see `slices.measure_slices`.

    Returns:
        The tables of classes and slices.
    """
    labels = recipe.data.labels
    if targets.ndim == 1:
        matrix = confusion_matrix(probabilities, targets)
        plot_confusion(matrix, labels, folder / "confusion.png")
        write_json(folder / "confusion.json", matrix.tolist())
    plot_reliability(probabilities, targets, recipe.evaluate.calibration_bins, folder / "reliability.png")
    told = measure_slices(probabilities, targets, slices, _OF_SLICES, recipe.evaluate)
    whole = measure(probabilities, targets, {"accuracy": accuracy}, recipe.evaluate)["accuracy"]
    plot_slices(told, "accuracy", whole, folder / "slices.png")
    return {"classes": class_table(probabilities, targets, labels), "slices": told}
