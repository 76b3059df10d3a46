"""Records to which none of the labels applies: their loss, their metrics, and what a recipe says of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from recaster.core.errors import DataError
from recaster.evaluation.metrics import classification_metrics, measure
from recaster.evaluation.scope import add_scope, check_scope, find_least_probability, out_of_scope_auroc
from recaster.models.losses import build_loss
from recaster.recipe.evaluation import EvaluateSection
from recaster.recipe.load import load_recipe
from recaster.recipe.schema import Recipe
from recaster.recipe.training import Loss
from tests.conftest import ROOT


def _made(rows: int = 400) -> tuple[Any, Any]:
    """Probabilities of three labels, right for most rows; every fifth row is out of scope and less sure."""
    random = np.random.default_rng(3)
    targets = np.where(np.arange(rows) % 5 == 0, -1, random.integers(0, 3, rows))
    logits = random.normal(size=(rows, 3))
    logits[np.arange(rows), targets.clip(min=0)] += np.where(targets >= 0, 2.5, 0.3)
    odds = np.exp(logits)
    return odds / odds.sum(1, keepdims=True), targets


def test_area_under_the_curve_is_scikit_learn_s() -> None:
    probabilities, targets = _made()
    predictions = add_scope(np.round(probabilities, 1), 0.5)  # with ties
    assert out_of_scope_auroc(predictions, targets) == pytest.approx(
        roc_auc_score(targets == -1, predictions[:, -1])
    )


def test_metrics_of_labels_look_at_rows_that_have_one() -> None:
    probabilities, targets = _made()
    section = EvaluateSection(false_reject_rate=0.05)
    least = find_least_probability(probabilities[targets >= 0], 0.05)
    found = measure(add_scope(probabilities, least), targets, classification_metrics(section), section)
    known = targets >= 0
    plain = measure(
        probabilities[known], targets[known], classification_metrics(EvaluateSection()), EvaluateSection()
    )
    assert found["accuracy"] == plain["accuracy"]  # Wilson's interval of these rows alone too
    assert found["macro_f1"]["value"] == plain["macro_f1"]["value"]
    assert 0 < found["in_scope_rejected"]["value"] <= 0.05
    refused = probabilities.max(1) < least
    assert found["out_of_scope_recall"]["value"] == pytest.approx(refused[~known].mean())
    right = (probabilities.argmax(1) == targets)[known] & ~refused[known]
    assert found["accuracy_after_rejection"]["value"] == pytest.approx(right.mean())


def test_the_loss_wants_equal_probabilities_out_of_scope() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 4), torch.tensor([0, -1, 3, 2, -1, 1])
    section = Loss(outlier_weight=0.25, label_smoothing=0.1).model_dump()
    known, even = targets >= 0, torch.full((2, 4), 0.25)
    wanted = F.cross_entropy(logits[known], targets[known], reduction="sum", label_smoothing=0.1)
    wanted = wanted + 0.25 * F.cross_entropy(logits[~known], even, reduction="sum")
    assert build_loss(section, training=True)(logits, targets).item() == pytest.approx(
        wanted.item(), rel=1e-6
    )
    plain = F.cross_entropy(logits[known], targets[known], reduction="sum")
    assert build_loss(section, training=False)(logits, targets).item() == pytest.approx(
        plain.item(), rel=1e-6
    )


@pytest.mark.parametrize("targets", [[0, 1, 2], [-1, -1]])
def test_a_test_split_of_one_kind_is_refused(targets: list[int]) -> None:
    with pytest.raises(DataError, match="all in scope, or none is"):
        check_scope(np.array(targets), label="oos")


def test_of_a_draw_without_the_one_kind_nothing_is_said() -> None:
    probabilities, _ = _made(20)
    assert math.isnan(out_of_scope_auroc(add_scope(probabilities, 0.5), np.zeros(20, dtype=np.int64)))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"evaluate.false_reject_rate": 0.05}, "is for data.out_of_scope, which is not set"),
        ({"data.out_of_scope": "other"}, "needs train.loss.outlier_weight; 0.5 is usual"),
        (
            {"data.out_of_scope": "other", "train.loss.outlier_weight": 0.5},
            "needs evaluate.false_reject_rate; 0.05 is usual",
        ),
        ({"data.out_of_scope": "alarm"}, "is among labels too"),
        ({"gate.champion.metric": "out_of_scope_auroc"}, "is of data with out_of_scope"),
        (
            {
                "data.out_of_scope": "other",
                "train.loss": {**Loss(name="brier").model_dump(), "outlier_weight": 0.5},
            },
            "needs train.loss cross-entropy",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], told: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / "text-classification" / "tiny.yaml").model_dump()
    for path, value in changes.items():
        *parents, name = path.split(".")
        section = recipe
        for parent in parents:
            section = section[parent]
        section[name] = value
    with pytest.raises(ValidationError, match=told):
        Recipe.model_validate(recipe)
