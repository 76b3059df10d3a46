"""Records with one label or several: targets, splits, weights, losses and metrics against references."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn import metrics as reference
from torch.nn import functional as F

from recaster.data.labels import balance, count_labels, find_rarest, number_labels, pattern, to_text
from recaster.evaluation.metrics import class_table, classification_metrics, measure
from recaster.models.losses import build_loss, count_correct, to_probabilities
from recaster.recipe.data import DataSection
from recaster.recipe.evaluation import EvaluateSection
from recaster.recipe.load import load_recipe
from recaster.recipe.schema import Recipe
from recaster.recipe.training import Loss
from tests.conftest import ROOT

LABELS = ["cat", "dog (big)", "eel"]


def _section(*, several: bool) -> DataSection:
    told = {"source": "x", "licence": "MIT", "labels": LABELS, "text": {"max_tokens": 8}}
    return DataSection.model_validate({**told, "several_labels": several})


def test_several_labels_become_a_row_of_ones() -> None:
    told = ["cat|eel", None, "dog (big)", ""]
    targets = number_labels(told, _section(several=True))
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert find_rarest(targets).tolist() == [0, 3, 1, 3]
    assert count_labels(targets) == {0: 1, 1: 1, 2: 1}
    assert number_labels(["eel", "cat"], _section(several=False)).tolist() == [2, 0]
    assert to_text(["cat", "eel"]) == "cat|eel" and to_text([]) == "" and to_text(None) is None


def test_the_contract_knows_all_labels_of_a_record() -> None:
    known = re.compile(pattern(LABELS))
    assert all(known.match(text) for text in ("", "cat", "dog (big)|cat", "eel|eel"))
    assert not any(known.match(text) for text in ("cow", "cat|cow", "cat|", "|", "cat,eel", "dog", "cat\n"))


def test_balanced_weights_make_all_labels_count_the_same() -> None:
    one = balance({0: 60, 1: 30, 2: 10}, rows=100, classes=4, several=False)
    assert [count * weight for count, weight in zip((60, 30, 10), one[:3], strict=True)] == pytest.approx(
        [100 / 3] * 3, rel=1e-4
    )
    assert one[3] == 1.0
    several = balance({0: 20, 1: 50}, rows=100, classes=3, several=True)
    assert several == [4.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["cross-entropy", "focal", "margin", "brier"])
def test_class_weights_multiply_each_row_s_loss(name: str) -> None:
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(7, 3), torch.tensor([0, 1, 2, 2, 1, 0, 2]), [0.5, 2.0, 3.0]
    plain = build_loss(Loss(name=name).model_dump(), training=True)  # type: ignore[arg-type]
    weighed = Loss(name=name, class_weights=weights).model_dump()  # type: ignore[arg-type]
    wanted = sum(
        weights[int(target)] * plain(logits[row : row + 1], targets[row : row + 1])
        for row, target in enumerate(targets)
    )
    torch.testing.assert_close(build_loss(weighed, training=True)(logits, targets), wanted)
    torch.testing.assert_close(build_loss(weighed, training=False)(logits, targets), plain(logits, targets))


def test_the_loss_of_several_labels_is_torch_s() -> None:
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(7, 3), torch.randint(0, 2, (7, 3)), [0.5, 2.0, 3.0]
    section = Loss(name="binary-cross-entropy", class_weights=weights).model_dump()
    wanted = F.binary_cross_entropy_with_logits(logits, targets.float(), pos_weight=torch.tensor(weights))
    torch.testing.assert_close(build_loss(section, training=True)(logits, targets) / 7, wanted)
    assert int(count_correct(logits, (logits > 0).long())) == 7
    assert int(count_correct(logits, (logits < 0).long())) == 0


def test_metrics_of_several_labels_are_scikit_learn_s() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, (90, 4))
    targets[:, 3] = 0  # a label that no row has
    scores = np.clip(0.5 + 0.25 * (targets - 0.5) + 0.3 * random.standard_normal((90, 4)), 0.001, 0.999)
    scores = scores.round(1).clip(0.001, 0.999)  # with rows of equal probability
    told = (scores >= 0.5).astype(int)
    found: Any = measure(scores, targets, classification_metrics(EvaluateSection()), EvaluateSection())
    values = {name: entry["value"] for name, entry in found.items()}
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(targets, told))
    assert values["micro_f1"] == pytest.approx(reference.f1_score(targets, told, average="micro"))
    wanted = reference.f1_score(targets, told, average=None, zero_division=0.0)
    assert values["macro_f1"] == pytest.approx(wanted.mean())
    wanted = [reference.average_precision_score(targets[:, k], scores[:, k]) for k in range(3)]
    assert values["macro_average_precision"] == pytest.approx(np.mean(wanted))
    wanted = [reference.log_loss(targets[:, k], scores[:, k], labels=[0, 1]) for k in range(4)]
    assert values["negative_log_likelihood"] == pytest.approx(sum(wanted))
    assert "top5_accuracy" not in values
    table = class_table(scores, targets, ["a", "b", "c", "d"])
    assert [row["rows"] for row in table] == targets.sum(0).tolist()
    assert table[0]["recall"] == pytest.approx(reference.recall_score(targets[:, 0], told[:, 0]))


def test_metrics_of_one_label_leave_those_of_several_out() -> None:
    random = np.random.default_rng(0)
    scores = to_probabilities(
        torch.tensor(random.standard_normal((40, 3))), torch.zeros(40, dtype=torch.long)
    )
    np.testing.assert_allclose(scores.sum(1), 1)
    found = measure(
        scores.numpy(),
        random.integers(0, 3, 40),
        classification_metrics(EvaluateSection()),
        EvaluateSection(),
    )
    assert "accuracy" in found and not {"micro_f1", "macro_average_precision"} & set(found)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data.several_labels": True}, "needs train.loss binary-cross-entropy"),
        ({"train.loss.name": "binary-cross-entropy"}, "data.several_labels is not set"),
        ({"train.loss.class_weights": [1.0, 2.0]}, "has 2 numbers for 4 labels"),
        ({"train.loss.class_weights": [1.0, 2.0, 0.0, 1.0]}, "must all be above 0"),
        ({"gate.champion.metric": "micro_f1"}, "of records with several labels"),
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
