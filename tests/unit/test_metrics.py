"""Metrics against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from recaster.evaluation import metrics
from recaster.recipe.schema import EvaluateSection

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
    first = metrics.measure(PROBABILITIES, TARGETS, section)
    assert first == metrics.measure(PROBABILITIES, TARGETS, section)
    assert all(
        entry["low"] <= entry["value"] <= entry["high"] for name, entry in first.items() if name == "accuracy"
    )
    same = metrics.paired_difference(PROBABILITIES, PROBABILITIES, TARGETS, "accuracy", section)
    assert same == (0.0, 0.0, 0.0)
