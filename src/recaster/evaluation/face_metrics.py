"""Metrics of faces compared in pairs and looked up in a gallery; a row is a person, not a picture or a pair.

    predictions  (people, pictures, embedding + 2)   NaN where a person has fewer pictures; the last two: how
                                                     many people are nearer than the own one, the threshold
    targets      (people,)                           a number for each person

So the bootstrap over rows draws people. One who is drawn twice is the same person twice: pairs between the
two copies are no pairs at all, neither of one person (they hold equal pictures) nor of two. Looking people up
keeps the whole gallery in each draw, since one with fewer people would be easier.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float64]
People = NDArray[np.int64]
FALSE_ACCEPT_RATES = (0.1, 0.01, 0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The scores of all pairs of pictures, ascending; for embeddings of length 1 a score is their cosine."""

    same: NDArray[np.float64]
    """Of one person."""
    others: NDArray[np.float64]
    """Of two people."""
    threshold: float


def arrange(
    vectors: NDArray[np.float64], labels: NDArray[np.int64], threshold: float
) -> tuple[Embeddings, People]:
    """Vectors `(pictures, width)` with their persons' numbers as predictions and targets, in order."""
    people, counts = np.unique(labels, return_counts=True)
    arranged = np.full((len(people), counts.max(), vectors.shape[1] + 2), np.nan)
    places = _find_places(vectors, labels)
    for row, person in enumerate(people.tolist()):
        own = labels == person
        arranged[row, : own.sum(), :-2] = vectors[own]
        arranged[row, : own.sum(), -2] = places[own]
    arranged[..., -1] = threshold
    return arranged, people


def _find_places(vectors: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many other people are nearer to each picture than its own person; NaN for an only picture."""
    scores = _score(vectors)
    np.fill_diagonal(scores, -np.inf)
    places = np.full(len(labels), np.nan)
    for row, person in enumerate(labels.tolist()):
        own = scores[row][labels == person].max()
        if np.isfinite(own):
            # People, not pictures: one with many pictures before the own one takes one place.
            places[row] = len(np.unique(labels[(scores[row] > own) & (labels != person)]))
    return places


def embeddings_of(predictions: Embeddings) -> NDArray[np.float64]:
    """The vectors `(pictures, width)`, person by person."""
    return predictions[~np.isnan(predictions[:, :, 0])][:, :-2]


def score_pairs(predictions: Embeddings, targets: People) -> Pairs:
    """The scores of all pairs."""
    there = ~np.isnan(predictions[:, :, 0])
    slots = np.broadcast_to(np.arange(len(targets))[:, None], there.shape)[there]
    people = targets[slots]
    one, other = np.triu_indices(len(slots), 1)
    values = _score(embeddings_of(predictions))[one, other]
    return Pairs(
        same=np.sort(values[slots[one] == slots[other]]),
        others=np.sort(values[people[one] != people[other]]),
        threshold=float(predictions[0, 0, -1]),
    )


def _score(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(pictures, pictures)`: 1 less half the squared distance.

    Of vectors of length 1 it is the cosine; of others it has the order of distances.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors)
    scores: NDArray[np.float64] = 1 - (squares[:, None] + squares[None] - 2 * vectors @ vectors.T) / 2
    return scores


def roc_auc(predictions: Embeddings, targets: People) -> float:
    """Chance that a pair of one person scores above a pair of two, ties half; NaN without both."""
    pairs = score_pairs(predictions, targets)
    if not len(pairs.same) or not len(pairs.others):
        return math.nan
    below = np.searchsorted(pairs.others, pairs.same, side="left")
    up_to = np.searchsorted(pairs.others, pairs.same, side="right")
    return float((below + up_to).mean() / (2 * len(pairs.others)))


def find_threshold(others: NDArray[np.float64], rate: float) -> float:
    """The lowest threshold above which at most `rate` of `others` (ascending) lie."""
    allowed = math.floor(rate * len(others))
    return float(others[len(others) - 1 - allowed])


def tar_at_far(predictions: Embeddings, targets: People, *, rate: float) -> float:
    """Share of pairs of one person above the threshold that lets `rate` of the others through."""
    pairs = score_pairs(predictions, targets)
    if not len(pairs.same) or not len(pairs.others):
        return math.nan
    return _share_above(pairs.same, find_threshold(pairs.others, rate))


def equal_error_rate(predictions: Embeddings, targets: People) -> float:
    """Where as many pairs of one person are refused as pairs of two accepted."""
    pairs = score_pairs(predictions, targets)
    if not len(pairs.same) or not len(pairs.others):
        return math.nan
    cuts = np.unique(np.concatenate([pairs.same, pairs.others]))
    refused = np.searchsorted(pairs.same, cuts, side="right") / len(pairs.same)
    accepted = 1 - np.searchsorted(pairs.others, cuts, side="right") / len(pairs.others)
    nearest = np.abs(refused - accepted).argmin()
    return float((refused[nearest] + accepted[nearest]) / 2)


def true_accept_rate(predictions: Embeddings, targets: People) -> float:
    """Share of pairs of one person above the shipped threshold."""
    pairs = score_pairs(predictions, targets)
    return _share_above(pairs.same, pairs.threshold)


def false_accept_rate(predictions: Embeddings, targets: People) -> float:
    """Share of pairs of two people above the shipped threshold."""
    pairs = score_pairs(predictions, targets)
    return _share_above(pairs.others, pairs.threshold)


def _share_above(values: NDArray[np.float64], threshold: float) -> float:
    if not len(values):
        return math.nan
    return float(1 - np.searchsorted(values, threshold, side="right") / len(values))


def found_by_rank(predictions: Embeddings, targets: People, *, rank: int) -> float:  # noqa: ARG001
    """Share of pictures whose person is among the `rank` nearest people, each picture against all others.

    Pictures without another one of their person are not looked up.
    """
    places = predictions[:, :, -2]
    looked_up = places[~np.isnan(places)]
    return float((looked_up < rank).mean()) if len(looked_up) else math.nan


FACE_METRICS: dict[str, Callable[[Embeddings, People], float]] = {
    "roc_auc": roc_auc,
    "equal_error_rate": equal_error_rate,
    **{f"tar_at_far_{rate}": partial(tar_at_far, rate=rate) for rate in FALSE_ACCEPT_RATES},
    "rank1": partial(found_by_rank, rank=1),
    "rank5": partial(found_by_rank, rank=5),
    "true_accept_rate": true_accept_rate,
    "false_accept_rate": false_accept_rate,
}
"""By the names that a gate knows; those with a threshold of their own take it from the artifact."""
