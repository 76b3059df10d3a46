"""What is counted in each sentence of a parse, so that metrics are sums and intervals are over sentences.

Words are the gold ones, so that each word of one side has its partner. Rows are sentences:

targets        words, content words, then words of each relation and of each distance
predictions    right ones of each metric, content words by the parser, then of each relation and each
               distance how many the parser has, and how many of them are right
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.conll18 import score_trees
from recaster.evaluation.metrics import MetricFunction
from recaster.models.conllu import Sentence, Word

_SCORES = {
    "uas": "UAS",
    "las": "LAS",
    "clas": "CLAS",
    "upos_accuracy": "UPOS",
    "xpos_accuracy": "XPOS",
    "features_accuracy": "UFeats",
    "lemma_accuracy": "Lemmas",
}
"""Metrics, and what the shared task calls them."""
RELATIONS = (
    *[
        "acl",
        "advcl",
        "advmod",
        "amod",
        "appos",
        "aux",
        "case",
        "cc",
        "ccomp",
        "clf",
        "compound",
        "conj",
        "cop",
        "csubj",
        "dep",
        "det",
        "discourse",
    ],
    *[
        "dislocated",
        "expl",
        "fixed",
        "flat",
        "goeswith",
        "iobj",
        "list",
        "mark",
        "nmod",
        "nsubj",
        "nummod",
        "obj",
        "obl",
        "orphan",
        "parataxis",
    ],
    *["punct", "reparandum", "root", "vocative", "xcomp", "other"],
)
"""The universal ones, and `other` for all the rest."""
DISTANCES = ("root", "1", "2", "3 to 6", "7 to 14", "15 and more")
"""Words between which an arc leads, in groups."""
LENGTHS = (10, 20, 30, 40)
"""Words up to which sentences form a group."""
_BOUNDS = (1, 2, 6, 14)
_OWN = len(_SCORES)
_GROUPS = len(RELATIONS) + len(DISTANCES)
Counts = NDArray[np.float64]


def count_sentences(gold: Sequence[Sentence], system: Sequence[Sentence]) -> tuple[Counts, Counts]:
    """Predictions `(sentences, 8 + 2 groups)` and targets `(sentences, 2 + groups)` of the same words."""
    pairs = list(zip(gold, system, strict=True))
    predictions = np.zeros((len(pairs), _OWN + 1 + 2 * _GROUPS))
    targets = np.zeros((len(pairs), 2 + _GROUPS))
    for row, (one, other) in enumerate(pairs):
        scores = score_trees([one], [other])
        predictions[row, :_OWN] = [scores[name].correct for name in _SCORES.values()]
        predictions[row, _OWN] = scores["CLAS"].system
        targets[row, :2] = len(one.words), scores["CLAS"].gold
        for number, (mine, theirs) in enumerate(zip(one.words, other.words, strict=True), start=1):
            right = mine.head == theirs.head and _relation(mine) == _relation(theirs)
            for wanted, found in zip(_groups(mine, number), _groups(theirs, number), strict=True):
                targets[row, 2 + wanted] += 1
                predictions[row, _OWN + 1 + found] += 1
                predictions[row, _OWN + 1 + _GROUPS + wanted] += right
    return predictions, targets


def _relation(word: Word) -> str:
    return word.deprel.partition(":")[0]


def _groups(word: Word, number: int) -> tuple[int, int]:
    """The places of a word's relation and distance among the groups."""
    relation = _relation(word)
    named = RELATIONS.index(relation if relation in RELATIONS else "other")
    away = abs((word.head or 0) - number)
    distance = 1 + sum(away > bound for bound in _BOUNDS) if word.head else 0
    return named, len(RELATIONS) + distance


def _ratio(column: int) -> MetricFunction:
    return lambda predictions, targets: float(predictions[:, column].sum() / targets[:, 0].sum())


def _content_f1(predictions: NDArray[Any], targets: NDArray[Any]) -> float:
    column = list(_SCORES).index("clas")
    both = predictions[:, _OWN].sum() + targets[:, 1].sum()
    return float(2 * predictions[:, column].sum() / both) if both else 1.0


PARSE_METRICS: Mapping[str, MetricFunction] = {
    **{name: _ratio(column) for column, name in enumerate(_SCORES)},
    "clas": _content_f1,
}
"""All over the gold words; CLAS is the harmonic mean of precision and recall."""


def tabulate(predictions: Counts, targets: Counts) -> dict[str, list[dict[str, Any]]]:
    """Labelled attachment by relation and by distance, and by the sentence's length."""
    wanted = targets[:, 2:].sum(0)
    found, right = predictions[:, _OWN + 1 :].sum(0).reshape(2, _GROUPS)
    rows = [
        {
            "group": name,
            "words": int(wanted[number]),
            "precision": float(right[number] / found[number]) if found[number] else 0.0,
            "recall": float(right[number] / wanted[number]) if wanted[number] else 0.0,
        }
        for number, name in enumerate((*RELATIONS, *DISTANCES))
    ]
    by_relation = [row for row in rows[: len(RELATIONS)] if row["words"]]
    return {
        "by_relation": sorted(by_relation, key=lambda row: -row["words"]),
        "by_distance": rows[len(RELATIONS) :],
        "by_length": _by_length(predictions, targets),
    }


def _by_length(predictions: Counts, targets: Counts) -> list[dict[str, Any]]:
    lengths, las = targets[:, 0], list(_SCORES).index("las")
    groups = np.searchsorted(LENGTHS, lengths)
    table = []
    for group in range(len(LENGTHS) + 1):
        own = groups == group
        if own.any():
            low = LENGTHS[group - 1] + 1 if group else 1
            name = f"{low} to {LENGTHS[group]}" if group < len(LENGTHS) else f"{low} and more"
            share = float(predictions[own, las].sum() / lengths[own].sum())
            table.append({"group": name, "sentences": int(own.sum()), "las": share})
    return table
