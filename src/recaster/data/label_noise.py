"""Records whose label may be wrong, by the words of records with other labels.

record    label     likelier label      found by
request   weather   alarm               a linear model over words and their pairs, fitted without the record

Confident learning (Northcutt, Jiang and Chuang, Journal of Artificial Intelligence Research 70, 2021): a
record counts as another label's when its probability of that label is at least the mean that the label's own
records have, or 0.9. It finds candidates for people to look at; rare but right ways to say something too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PARTS = 3
"""The model that judges a record was fitted on the two parts that it is not in."""
_LEAST_RECORDS, _MOST_RECORDS = 60, 50_000
_MOST_WORDS = 50_000
_SURE = 0.9
"""Enough of any label, where its own records have more on average."""
_WORD = r"(?u)\w+"


def find_likelier_labels(texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Of each record the label that it may have in truth; empty where its own stands.

    Equal texts are judged together, by others alone. Nothing is said of fewer than 60 records, of a label
    with fewer than three different texts, nor, of more than 50,000 records, of those that are not among an
    even sample.
    """
    found = [""] * len(texts)
    rows = _choose_rows(texts, labels)
    if len(rows) < _LEAST_RECORDS or len({labels[row] for row in rows}) < 2:
        return found
    own = np.array([labels[row] for row in rows])
    probabilities, classes = _judge([texts[row] for row in rows], own)
    numbers = np.searchsorted(classes, own)
    for place in _contradicted(probabilities, numbers):
        found[rows[place]] = str(classes[probabilities[place].argmax()])
    return found


def _choose_rows(texts: Sequence[str], labels: Sequence[str]) -> list[int]:
    different = Counter(label for label, _ in {*zip(labels, texts, strict=True)})
    rows = [
        row
        for row, (label, text) in enumerate(zip(labels, texts, strict=True))
        if label and text.strip() and different[label] >= _PARTS
    ]
    if len(rows) <= _MOST_RECORDS:
        return rows
    return [rows[place] for place in np.linspace(0, len(rows) - 1, _MOST_RECORDS).astype(int).tolist()]


def _judge(texts: list[str], labels: NDArray[np.str_]) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Probabilities `(records, classes)` by models that have not seen the record, and the classes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    words = TfidfVectorizer(
        ngram_range=(1, 2), max_features=_MOST_WORDS, sublinear_tf=True, token_pattern=_WORD
    )
    features = words.fit_transform(texts)
    classes = np.unique(labels)
    probabilities = np.zeros((len(texts), len(classes)))
    parts = StratifiedGroupKFold(_PARTS, shuffle=True, random_state=0)
    for fitted, judged in parts.split(features, labels, groups=texts):
        model = SGDClassifier(loss="log_loss", alpha=1e-5, average=True, random_state=0)
        model.fit(features[fitted], labels[fitted])
        told = model.predict_proba(features[judged])
        probabilities[np.ix_(judged, np.searchsorted(classes, model.classes_))] = told
    return probabilities, classes


def _contradicted(probabilities: NDArray[np.float64], numbers: NDArray[np.int64]) -> list[int]:
    """Rows that count as another class's."""
    bounds = np.array(
        [probabilities[numbers == number, number].mean() for number in range(probabilities.shape[1])]
    ).clip(max=_SURE)
    confident = np.where(probabilities >= bounds, probabilities, -1.0)
    best = confident.argmax(1)
    sure = (confident.max(1) >= 0) & (best == probabilities.argmax(1))
    return [int(row) for row in np.flatnonzero(sure & (best != numbers))]
