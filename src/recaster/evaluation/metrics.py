"""Metrics on held-out predictions, each with an interval: Wilson's or the bootstrap's.

Those of classification take probabilities `(rows, classes)` that sum to 1 a row, and targets `(rows,)`,
class numbers; or, of records with several labels, each label's own probability and targets
`(rows, classes)`, 1 for the labels that a row has. From one half on a label counts as told.

Of data with `out_of_scope` predictions and targets are those of `evaluation.scope`; metrics that are not
about that look at the rows alone that have a label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed
from recaster.core.targets import OUT_OF_SCOPE
from recaster.evaluation.scope import SCOPE_METRICS, InScope
from recaster.recipe.evaluation import EvaluateSection
from recaster.recipe.label_rules import LEAST_CLASSES, OF_SEVERAL_LABELS

_SMALLEST = 1e-12
TOLD = 0.5
"""The probability from which on one of several labels counts as told."""
_PROPORTIONS = {
    "accuracy",
    "top5_accuracy",
    "out_of_scope_recall",
    "in_scope_rejected",
    "accuracy_after_rejection",
    "sample_precision",
    "sample_recall",
    "copied_fraction",
}
_CENTRED = {"frechet_distance"}
"""Those that repeated rows make larger: all draws lie above the value, so that only their spread tells."""
Probabilities = NDArray[np.float64]
Targets = NDArray[np.int64]
MetricFunction = Callable[[Probabilities, Targets], float]


def accuracy(probabilities: Probabilities, targets: Targets) -> float:
    """Share of rows whose largest probability is the target's, or of which all labels are told, no other."""
    if targets.ndim == 2:
        return float((_told(probabilities) == targets).all(1).mean())
    return float((probabilities.argmax(1) == targets).mean())


def _told(probabilities: Probabilities) -> Targets:
    return (probabilities >= TOLD).astype(np.int64)


def top5_accuracy(probabilities: Probabilities, targets: Targets) -> float:
    """Share of rows whose target is among the five largest probabilities; for more than five classes."""
    best = np.argpartition(probabilities, -5, axis=1)[:, -5:]
    return float((best == targets[:, None]).any(1).mean())


def macro_f1(probabilities: Probabilities, targets: Targets) -> float:
    """Mean over the classes that occur (as target or guess) of the harmonic mean of precision and recall."""
    hits, guessed, rows = count_by_class(probabilities, targets)
    total = guessed + rows
    return float((2.0 * hits[total > 0] / total[total > 0]).mean()) if total.any() else 0.0


def micro_f1(probabilities: Probabilities, targets: Targets) -> float:
    """Harmonic mean of precision and recall over all labels of all rows; of several labels a row."""
    hits, guessed, rows = (count.sum() for count in count_by_class(probabilities, targets))
    return float(2.0 * hits / max(1, guessed + rows))


def macro_average_precision(probabilities: Probabilities, targets: Targets) -> float:
    """Mean over the labels that some row has of the area under precision and recall; of several a row.

    Rows of equal probability stand at one place (as in scikit-learn's `average_precision_score`).
    """
    found = [
        _average_precision(probabilities[:, number], targets[:, number])
        for number in range(targets.shape[1])
        if targets[:, number].any()
    ]
    return float(np.mean(found)) if found else 0.0


def _average_precision(scores: NDArray[np.float64], has: Targets) -> float:
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits = has[order].cumsum()[ends]
    return float((np.diff(hits, prepend=0) * (hits / (ends + 1))).sum() / hits[-1])


def count_by_class(probabilities: Probabilities, targets: Targets) -> tuple[Targets, Targets, Targets]:
    """Of each class the rows that are rightly told to have it, that are told so, and that have it."""
    if targets.ndim == 2:
        told = _told(probabilities)
        return (told * targets).sum(0), told.sum(0), targets.sum(0)
    matrix = confusion_matrix(probabilities, targets)
    return np.diag(matrix), matrix.sum(0), matrix.sum(1)


def negative_log_likelihood(probabilities: Probabilities, targets: Targets) -> float:
    """Mean nats a row; of several labels the sum over these."""
    if targets.ndim == 2:
        right = np.where(targets > 0, probabilities, 1 - probabilities)
        return float(-np.log(np.maximum(right, _SMALLEST)).sum(1).mean())
    picked = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(picked, _SMALLEST)).mean())


def predictive_entropy(probabilities: Probabilities, targets: Targets) -> float:
    """Mean nats a row of the predicted distribution itself; of several labels the sum over these."""
    parts = [probabilities, 1 - probabilities] if targets.ndim == 2 else [probabilities]
    return float(sum(-(part * np.log(np.maximum(part, _SMALLEST))).sum(1).mean() for part in parts))


def calibration_error(probabilities: Probabilities, targets: Targets, *, bins: int) -> float:
    """Expected calibration error of the top guess, equal-width bins (Guo et al. 2017); of several labels that
    of each label's probability.
    """
    confidence, hit = confidences(probabilities, targets)
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(index, weights=confidence - hit, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def confidences(
    probabilities: Probabilities, targets: Targets
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What is told with which probability, and whether it is so: each row's guess, or each of its labels."""
    if targets.ndim == 2:
        return probabilities.ravel(), targets.ravel() > 0
    return probabilities.max(1), probabilities.argmax(1) == targets


def confusion_matrix(probabilities: Probabilities, targets: Targets) -> NDArray[np.int64]:
    """`(classes, classes)` counts, row: target, column: guess."""
    classes = probabilities.shape[1]
    flat = np.bincount(targets * classes + probabilities.argmax(1), minlength=classes * classes)
    return flat.reshape(classes, classes)


def classification_metrics(section: EvaluateSection) -> dict[str, MetricFunction]:
    """Every metric of classification by name."""
    found: dict[str, MetricFunction] = {
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "micro_f1": micro_f1,
        "macro_average_precision": macro_average_precision,
        "negative_log_likelihood": negative_log_likelihood,
        "calibration_error": lambda p, t: calibration_error(p, t, bins=section.calibration_bins),
        "predictive_entropy": predictive_entropy,
    }
    if section.false_reject_rate is None:
        return found
    known = InScope()
    return {**{name: known.of(function) for name, function in found.items()}, **SCOPE_METRICS}


def measure(
    predictions: NDArray[np.float64],
    targets: Targets,
    functions: Mapping[str, MetricFunction],
    section: EvaluateSection,
) -> dict[str, dict[str, float]]:
    """`{metric: {value, low, high}}`.

    Accuracies are proportions and have Wilson's interval: resampling a perfect score only gives perfect
    scores. The others have the percentile bootstrap over rows (macro F1 of a perfect score: 1 to 1); that of
    a Frechet distance is moved so that its median is the value. A metric that says nothing of so few classes
    is left out.
    """
    functions = {
        name: function for name, function in functions.items() if _says_something(name, predictions, targets)
    }
    drawn: dict[str, list[float]] = {name: [] for name in functions.keys() - _PROPORTIONS}
    for rows in _draws(len(targets), section) if drawn else []:
        sample = predictions[rows], targets[rows]  # once for all: it may be large
        for name, values in drawn.items():
            values.append(functions[name](*sample))
    measured = {}
    for name, function in functions.items():
        value = function(predictions, targets)
        if name in _PROPORTIONS:
            counted = _count_rows(name, targets)
            low, high = wilson_interval(round(value * counted), counted, section.confidence)
        else:
            low, high = _interval(drawn[name], section.confidence)
            if name in _CENTRED:
                shift = value - float(np.median(drawn[name]))
                low, high = low + shift, high + shift
        measured[name] = {"value": value, "low": low, "high": high}
    return measured


def _count_rows(name: str, targets: Targets) -> int:
    """Of which a metric is a share."""
    outside = int((targets == OUT_OF_SCOPE).sum()) if targets.ndim == 1 else 0
    return outside if name == "out_of_scope_recall" else len(targets) - outside


def _says_something(name: str, predictions: NDArray[np.float64], targets: Targets) -> bool:
    if predictions.ndim > 1 and predictions.shape[1] < LEAST_CLASSES.get(name, 0):
        return False
    return (name != "top5_accuracy") if targets.ndim == 2 else (name not in OF_SEVERAL_LABELS)


def wilson_interval(hits: int, rows: int, confidence: float) -> tuple[float, float]:
    """The score interval of a proportion, `hits` of `rows`.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927), 209-212; recommended over the normal
    approximation by Brown, Cai and DasGupta, "Interval estimation for a binomial proportion",
    Statistical Science 16 (2001), 101-133.
    """
    share = hits / rows
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    # Exact where rounding would miss the end: no hit gives 0, all hits give 1.
    return (0.0 if hits == 0 else middle - half), (1.0 if hits == rows else middle + half)


def paired_difference(
    challenger: NDArray[np.float64],
    champion: NDArray[np.float64],
    targets: Targets,
    function: MetricFunction,
    section: EvaluateSection,
) -> tuple[float, float, float]:
    """Challenger minus champion in a metric on the same rows: point, low, high (paired bootstrap)."""
    values = [
        function(challenger[rows], targets[rows]) - function(champion[rows], targets[rows])
        for rows in _draws(len(targets), section)
    ]
    low, high = _interval(values, section.confidence)
    return function(challenger, targets) - function(champion, targets), low, high


def class_table(probabilities: Probabilities, targets: Targets, labels: list[str]) -> list[dict[str, Any]]:
    """A row a class: label, rows, precision, recall, f1 (0 where undefined)."""
    table = []
    for label, hits, guessed, rows in zip(labels, *count_by_class(probabilities, targets), strict=True):
        table.append(
            {
                "label": label,
                "rows": int(rows),
                "precision": float(hits / guessed) if guessed else 0.0,
                "recall": float(hits / rows) if rows else 0.0,
                "f1": float(2 * hits / (rows + guessed)) if rows + guessed else 0.0,
            }
        )
    return table


def _draws(rows: int, section: EvaluateSection) -> list[NDArray[np.int64]]:
    random = np.random.default_rng(derive_seed(section.seed, "bootstrap"))
    return [random.integers(0, rows, rows) for _ in range(section.bootstrap_samples)]


def _interval(values: list[float], confidence: float) -> tuple[float, float]:
    # A draw that holds nothing to measure, such as one person alone, has no value.
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
