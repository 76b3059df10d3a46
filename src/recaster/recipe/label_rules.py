"""What of a recipe goes together with labels: one a record, or several."""

from __future__ import annotations

from collections.abc import Iterable

from recaster.recipe.customize import CustomizeSection
from recaster.recipe.data import DataSection
from recaster.recipe.training import Loss

LABELLED = ("image-classification", "text-classification")
"""Workloads whose records have labels as a whole."""
OF_SEVERAL_LABELS = ("micro_f1", "macro_average_precision")
"""Metrics that only say something of records with several labels."""
LEAST_CLASSES = {"top5_accuracy": 6}
"""Metrics that say nothing of fewer classes."""


def check_several_labels(workload: str, data: DataSection, loss: Loss, customize: CustomizeSection) -> None:
    """Records with several labels have their own loss, and no method that compares single answers.

    Raises:
        ValueError: what does not go together, and the repair.
    """
    several = data.several_labels
    if several and workload not in LABELLED:
        raise ValueError(f"data.several_labels is for {' and '.join(LABELLED)}; remove it")
    if several != (loss.name == "binary-cross-entropy"):
        told = "needs train.loss binary-cross-entropy" if several else "is not set, for which it is"
        raise ValueError(f"data.several_labels {told}; train.loss is {loss.name}")
    if several and (customize.method == "distil" or loss.consistency):
        raise ValueError(
            "customize.method distil and train.loss.consistency compare probabilities of which one label is "
            "right; remove them, or data.several_labels"
        )


def check_class_weights(workload: str, data: DataSection, loss: Loss) -> None:
    """There is one for each label.

    Raises:
        ValueError: what does not go together, and the repair.
    """
    weights = loss.class_weights
    if weights is not None and workload not in LABELLED:
        raise ValueError(f"train.loss.class_weights is for {' and '.join(LABELLED)}; remove it")
    if isinstance(weights, list) and len(weights) != len(data.labels):
        raise ValueError(
            f"train.loss.class_weights has {len(weights)} numbers for {len(data.labels)} labels; give one "
            "for each, in their order"
        )


def check_metrics(metrics: Iterable[str], data: DataSection) -> None:
    """Each says something of such records.

    Raises:
        ValueError: which does not, and why.
    """
    for metric in metrics:
        if metric in OF_SEVERAL_LABELS and not data.several_labels:
            raise ValueError(f"{metric} is of records with several labels; use macro_f1 or accuracy")
        if metric == "top5_accuracy" and data.several_labels:
            raise ValueError(f"{metric} is of records with one label; use macro_average_precision")
        least = LEAST_CLASSES.get(metric, 0)
        if len(data.labels) < least:
            raise ValueError(f"{metric} needs {least} labels, and data.labels has {len(data.labels)}")
