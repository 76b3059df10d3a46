"""How word vectors agree with what people say of words.

Predictions are `(pairs, 3)`: the number of a pair's set, the cosine of its words, and whether both have a
vector; targets `(pairs,)`: how alike people find them, in the set's own unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

SET, COSINE, KNOWN = 0, 1, 2
"""Columns of the predictions."""
Judged = NDArray[np.float64]
MetricFunction = Callable[[NDArray[np.float64], NDArray[Any]], float]
_LEAST_PAIRS = 3


def spearman(predictions: NDArray[np.float64], targets: Judged) -> float:
    """Rank correlation of cosines and judgements over pairs that are known, the mean over sets.

    As eval-word-vectors does it (Faruqui and Dyer 2014): pairs with an unknown word are left out, and the
    coverage says how many remain. NaN where no set has three pairs, or all are judged alike.
    """
    found = [value for _, value, _, _ in by_set(predictions, targets) if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")


def coverage(predictions: NDArray[np.float64], targets: Judged) -> float:  # noqa: ARG001 - one shape for all metrics
    """Share of the pairs of which both words have a vector, over all sets together."""
    return float(predictions[:, KNOWN].mean())


def by_set(predictions: NDArray[np.float64], targets: Judged) -> list[tuple[int, float, int, int]]:
    """Of each set: its number, Spearman's rho (NaN for too few pairs), pairs that are known, pairs."""
    rows = []
    for number in np.unique(predictions[:, SET]).astype(int).tolist():
        own = predictions[:, SET] == number
        known = own & (predictions[:, KNOWN] > 0)
        value = rank_correlation(predictions[known, COSINE], targets[known])
        rows.append((number, value, int(known.sum()), int(own.sum())))
    return rows


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's rho; equal values share the mean of their ranks. NaN for fewer than three pairs."""
    if len(first) < _LEAST_PAIRS:
        return float("nan")
    one, other = _rank(first), _rank(second)
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / size) if size else float("nan")


def _rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = counts.cumsum() - (counts - 1) / 2.0
    return ranks[place]


WORD_METRICS: dict[str, MetricFunction] = {"spearman": spearman, "coverage": coverage}
