"""Metrics against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from recaster.evaluation import metrics
from recaster.recipe.evaluation import EvaluateSection

RANDOM = np.random.default_rng(1)
TARGETS = RANDOM.integers(0, 4, 300)
PROBABILITIES = RANDOM.dirichlet(np.ones(4), 300)
PROBABILITIES[np.arange(300), TARGETS] += 0.6
PROBABILITIES /= PROBABILITIES.sum(1, keepdims=True)


def test_against_scikit_learn() -> None:
    guesses = PROBABILITIES.argmax(1)
    assert metrics.accuracy(PROBABILITIES, TARGETS) == accuracy_score(TARGETS, guesses)
    assert metrics.macro_f1(PROBABILITIES, TARGETS) == pytest.approx(
        f1_score(TARGETS, guesses, average="macro")
    )
    assert metrics.negative_log_likelihood(PROBABILITIES, TARGETS) == pytest.approx(
        log_loss(TARGETS, PROBABILITIES)
    )
    assert (metrics.confusion_matrix(PROBABILITIES, TARGETS) == confusion_matrix(TARGETS, guesses)).all()


def test_calibration_error_of_known_gap() -> None:
    sure = np.tile([0.9, 0.1], (100, 1))
    targets = np.array([0] * 70 + [1] * 30)
    assert metrics.calibration_error(sure, targets, bins=15) == pytest.approx(0.2)


def test_entropy_of_the_uniform() -> None:
    assert metrics.predictive_entropy(np.full((5, 4), 0.25), np.zeros(5, int)) == pytest.approx(np.log(4))


def test_intervals_hold_the_value_and_repeat() -> None:
    section = EvaluateSection(bootstrap_samples=200)
    functions = metrics.classification_metrics(section)
    first = metrics.measure(PROBABILITIES, TARGETS, functions, section)
    assert first == metrics.measure(PROBABILITIES, TARGETS, functions, section)
    assert all(
        first[name]["low"] <= first[name]["value"] <= first[name]["high"]
        for name in ("accuracy", "macro_f1", "negative_log_likelihood")
    )
    same = metrics.paired_difference(PROBABILITIES, PROBABILITIES, TARGETS, functions["accuracy"], section)
    assert same == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("rows", [1, 20, 359])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_against_scipy(rows: int, share: float, confidence: float) -> None:
    hits = round(share * rows)
    wanted = binomtest(hits, rows).proportion_ci(confidence, method="wilson")
    assert metrics.wilson_interval(hits, rows, confidence) == pytest.approx(
        (wanted.low, wanted.high), abs=1e-12
    )


def test_a_perfect_score_is_not_certain() -> None:
    section = EvaluateSection(bootstrap_samples=100)
    functions = metrics.classification_metrics(section)
    measured = metrics.measure(np.eye(4)[TARGETS], TARGETS, functions, section)
    assert measured["accuracy"]["value"] == measured["accuracy"]["high"] == 1.0
    # 300 of 300: 1 / (1 + z^2 / 300) with z = 1.95996.
    assert measured["accuracy"]["low"] == pytest.approx(0.98736, abs=1e-5)


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    hits = RANDOM.binomial(100, 0.97, 4000)
    bounds = [metrics.wilson_interval(int(count), 100, 0.95) for count in hits]
    covered = np.mean([low <= 0.97 <= high for low, high in bounds])
    assert 0.92 < covered < 0.98
