"""Which labels a record has: one of the recipe's, or several, or none.

one label         "cat"        →   3                    class numbers (rows,)
several           "cat|dog"    →   [0, 1, 0, 1]         (rows, classes), 1 for each that it has
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from recaster.core.targets import OUT_OF_SCOPE
from recaster.recipe.data import SEPARATOR, DataSection


def to_text(value: object) -> str | None:
    """A label of a JSON value: a list is several, written one after another."""
    if isinstance(value, list):
        return SEPARATOR.join(map(str, value))
    return None if value is None else str(value)


def number_labels(told: Sequence[str | None], data: DataSection) -> NDArray[np.int64]:
    """The targets of accepted records: `(rows,)`, or `(rows, classes)` where they may have several.

    Records of data.out_of_scope have `OUT_OF_SCOPE`.
    """
    numbers = {label: number for number, label in enumerate(data.labels)}
    if data.out_of_scope:
        numbers[data.out_of_scope] = OUT_OF_SCOPE
    if not data.several_labels:
        return np.array([numbers[label or ""] for label in told], dtype=np.int64)
    targets = np.zeros((len(told), len(numbers)), dtype=np.int64)
    for row, text in enumerate(told):
        for label in split_labels(text):
            targets[row, numbers[label]] = 1
    return targets


def known_labels(data: DataSection) -> list[str]:
    """What a record's one label may be."""
    return [*data.labels, *([data.out_of_scope] if data.out_of_scope else [])]


def split_labels(text: str | None) -> list[str]:
    """The labels of one record that may have several."""
    return text.split(SEPARATOR) if text else []


def pattern(labels: Sequence[str]) -> str:
    """The regular expression of any of `labels`, one after another, or none."""
    one = "|".join(map(re.escape, labels))
    return rf"^(?:(?:{one})(?:{re.escape(SEPARATOR)}(?:{one}))*)?\Z"


def find_rarest(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """By which label each record is dealt to the splits, `(rows,)`.

    Its own; of several the rarest in the whole set, so that every split has some of it; of none the number
    after the last.
    """
    if targets.ndim == 1:
        return targets
    counts = np.where(targets > 0, targets.sum(0), np.iinfo(np.int64).max)
    rarest: NDArray[np.int64] = np.where(targets.any(1), counts.argmin(1), targets.shape[1])
    return rarest


def count_labels(targets: NDArray[np.int64]) -> dict[int, int]:
    """Records of each label that occurs, by its number; those out of scope have none."""
    if targets.ndim == 2:
        return {number: int(count) for number, count in enumerate(targets.sum(0).tolist()) if count}
    numbers, counts = np.unique(targets[targets != OUT_OF_SCOPE], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def balance(counts: Mapping[int, int], *, rows: int, classes: int, several: bool) -> list[float]:
    """Weights with which all labels count the same, however rare; 1 for a label that does not occur.

    Of one label a record: by which a row's loss is multiplied, 1 on average over the rows. Of several: by
    which a label's presence counts more than its absence.
    """
    present = sum(count > 0 for count in counts.values())
    weights = []
    for number in range(classes):
        count = counts.get(number, 0)
        even = (rows - count) / count if several and count else rows / (present * count) if count else 1.0
        weights.append(round(even or 1.0, 6))
    return weights
