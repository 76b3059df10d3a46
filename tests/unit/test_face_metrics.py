"""Metrics of faces against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recaster.evaluation.face_metrics import (
    FACE_METRICS,
    arrange,
    equal_error_rate,
    false_accept_rate,
    found_by_rank,
    roc_auc,
    score_pairs,
    tar_at_far,
)
from recaster.models.face_losses import arcface, cosface, hardest_triplets, nearest_is_own

_LABELS = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 6, 4, 3])


def _vectors(noise: float = 0.9) -> np.ndarray:
    random = np.random.default_rng(3)
    drawn = random.normal(size=(8, 16))[_LABELS] + noise * random.normal(size=(len(_LABELS), 16))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_auc_and_equal_error_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    given, vectors = arrange(_vectors(), _LABELS, 0.5), _vectors()
    one, other = np.triu_indices(len(_LABELS), 1)
    same, scores = _LABELS[one] == _LABELS[other], (vectors @ vectors.T)[one, other]
    assert roc_auc(*given) == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    assert tar_at_far(*given, rate=0.1) == pytest.approx(true[false <= 0.1].max())
    nearest = np.abs(1 - true - false).argmin()
    assert equal_error_rate(*given) == pytest.approx((1 - true[nearest] + false[nearest]) / 2, abs=0.01)
    assert false_accept_rate(*given) == pytest.approx((scores[~same] > 0.5).mean())


def test_rank_is_by_people_and_leaves_single_pictures_out() -> None:
    angles = np.deg2rad([0.0, 40.0, 10.0, 20.0, 90.0])
    vectors, labels = np.column_stack([np.cos(angles), np.sin(angles)]), np.array([0, 0, 1, 1, 2])
    given = arrange(vectors, labels, 0.0)
    # 0 has person 1 (10, 20) before its own at 40; 40 has 20; 10 and 20 have each other; 90 is single.
    assert found_by_rank(*given, rank=1) == pytest.approx(0.5)
    assert found_by_rank(*given, rank=2) == 1.0


def test_a_person_drawn_twice_makes_no_pair_with_the_copy() -> None:
    predictions, targets = arrange(_vectors(), _LABELS, 0.5)
    rows = np.array([2, 2, 5])
    drawn = score_pairs(predictions[rows], targets[rows])
    assert len(drawn.same) == 3 + 3 + 15 and len(drawn.others) == 2 * 3 * 6
    alone = score_pairs(predictions[[2, 2]], targets[[2, 2]])
    assert not len(alone.others) and math.isnan(roc_auc(predictions[[2, 2]], targets[[2, 2]]))


def test_perfect_embeddings_have_perfect_scores() -> None:
    given = arrange(np.eye(8)[_LABELS], _LABELS, 0.5)
    values = {name: function(*given) for name, function in FACE_METRICS.items()}
    wanted = {name: 0.0 if name in {"equal_error_rate", "false_accept_rate"} else 1.0 for name in values}
    assert values == wanted


def test_arcface_widens_the_angle_and_cosface_lowers_the_cosine() -> None:
    cosines, targets = torch.tensor([[0.6, 0.1, -0.2], [-0.99, 0.3, 0.2]]), torch.tensor([0, 0])
    widened = cosines.clone()
    widened[0, 0] = math.cos(math.acos(0.6) + 0.5)
    widened[1, 0] = -0.99 - 0.5 * math.sin(0.5)  # beyond pi - 0.5 the cosine would rise again
    wanted = F.cross_entropy(16 * widened, targets, reduction="sum")
    assert arcface(cosines, targets, distance=0.5, scale=16) == pytest.approx(float(wanted), rel=1e-4)
    assert arcface(cosines, targets, distance=1e-9, scale=16) == pytest.approx(
        float(F.cross_entropy(16 * cosines, targets, reduction="sum")), rel=1e-4
    )
    lowered = cosines - torch.tensor([0.3, 0.0, 0.0])
    wanted = F.cross_entropy(16 * lowered, targets, reduction="sum")
    assert cosface(cosines, targets, distance=0.3, scale=16) == pytest.approx(float(wanted))


def test_triplets_are_the_hardest_and_single_pictures_count_nothing() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 60.0, 65.0, 200.0]))
    embeddings, targets = torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([0, 0, 1, 0, 2])
    gap = lambda degrees: 2 * math.sin(math.radians(degrees) / 2)  # noqa: E731
    wanted = (gap(65) - gap(60) + 0.3) + (gap(55) - gap(50) + 0.3) + (gap(65) - gap(5) + 0.3)
    assert hardest_triplets(embeddings, targets, distance=0.3) == pytest.approx(wanted, rel=1e-4)
    assert int(nearest_is_own(embeddings, targets)) == 2
