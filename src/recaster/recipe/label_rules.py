"""What of a recipe goes together with labels: one a record, or several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from recaster.recipe.customize import CustomizeSection
from recaster.recipe.data import DataSection
from recaster.recipe.training import Loss

if TYPE_CHECKING:
    from recaster.recipe.schema import Recipe

LABELLED = ("image-classification", "text-classification")
"""Workloads whose records have labels as a whole."""
OF_SEVERAL_LABELS = ("micro_f1", "macro_average_precision")
"""Metrics that only say something of records with several labels."""
OF_SCOPE = ("out_of_scope_auroc", "out_of_scope_recall", "in_scope_rejected", "accuracy_after_rejection")
"""Metrics that only say something where some records have none of the labels."""
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


def check_out_of_scope(recipe: Recipe) -> None:
    """Where records may have none of the labels, it is said what becomes of them; elsewhere it is not.

    Raises:
        ValueError: what does not go together, and the repair.
    """
    data, loss = recipe.data, recipe.train.loss
    given = {
        "train.loss.outlier_weight": loss.outlier_weight,
        "evaluate.false_reject_rate": recipe.evaluate.false_reject_rate,
    }
    if data.out_of_scope is None:
        if useless := [name for name, value in given.items() if value is not None]:
            raise ValueError(
                f"{useless[0]} is for data.out_of_scope, which is not set; remove it, or set that"
            )
        return
    if recipe.workload != "text-classification" or data.several_labels:
        raise ValueError("data.out_of_scope is for text-classification with one label a record; remove it")
    if loss.name != "cross-entropy":
        raise ValueError(f"data.out_of_scope needs train.loss cross-entropy, not {loss.name}")
    if recipe.train.loss.consistency:
        raise ValueError("train.loss.consistency has no meaning for data.out_of_scope; remove one of them")
    for (name, value), usual in zip(given.items(), (0.5, 0.05), strict=True):
        if value is None:
            raise ValueError(f"data.out_of_scope needs {name}; {usual} is usual")


def check_metrics(metrics: Iterable[str], data: DataSection) -> None:
    """Each says something of such records.

    Raises:
        ValueError: which does not, and why.
    """
    for metric in metrics:
        if metric in OF_SEVERAL_LABELS and not data.several_labels:
            raise ValueError(f"{metric} is of records with several labels; use macro_f1 or accuracy")
        if metric in OF_SCOPE and not data.out_of_scope:
            raise ValueError(f"{metric} is of data with out_of_scope; use accuracy or macro_f1")
        if metric == "top5_accuracy" and data.several_labels:
            raise ValueError(f"{metric} is of records with one label; use macro_average_precision")
        least = LEAST_CLASSES.get(metric, 0)
        if len(data.labels) < least:
            raise ValueError(f"{metric} needs {least} labels, and data.labels has {len(data.labels)}")
