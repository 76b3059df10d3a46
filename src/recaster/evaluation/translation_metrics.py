"""What is measured of a translation, in arrays: quick enough to be resampled.

predictions  (rows, 31 + longest)  nats and hits of the teacher-forced translation; BLEU's counts (4),
             totals (4) and lengths (2); chrF's, of n-grams of letters 1 to 6: written, wanted, both (18);
             whether it is the wanted one; then the letters of the translation as code points, -1 fills up
targets      (rows,)  learned tokens by the tokenizer of the prepared data

Sums over rows give BLEU and chrF of the whole; sacrebleu's own figure on the same texts stands beside them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.metrics import MetricFunction
from recaster.evaluation.token_report import perplexity, token_accuracy

Found = NDArray[np.float64]
_ORDERS, _LETTERS = 4, 6
_BLEU = slice(2, 12)
_CHRF = slice(12, 30)
_EXACT, _TEXT = 30, 31
_BETA = 2
"""How much more recall counts than precision in chrF2 (Popović 2016)."""


def describe_translations(
    nats_hits: NDArray[np.float64], written: Sequence[str], wanted: Sequence[str]
) -> Found:
    """The predictions of some rows.

    Args:
        nats_hits: `(rows, 2)`, teacher-forced.
        written: translations; `wanted` are the references.
    """
    longest = max(map(len, written), default=0)
    found = np.full((len(written), _TEXT + longest), -1.0)
    found[:, :2] = nats_hits
    for row, (own, reference) in enumerate(zip(written, wanted, strict=True)):
        found[row, _BLEU] = _count_words(own, reference)
        found[row, _CHRF] = _count_letters(own, reference)
        found[row, _EXACT] = own == reference
        found[row, _TEXT : _TEXT + len(own)] = [ord(letter) for letter in own]
    return found


def read_translations(found: Found) -> list[str]:
    """The translations in predictions."""
    return ["".join(chr(int(point)) for point in row[row >= 0]) for row in found[:, _TEXT:]]


def _count_words(written: str, wanted: str) -> list[int]:
    """BLEU's counts, totals and lengths by sacrebleu's own words."""
    from sacrebleu.metrics import BLEU

    score = BLEU(effective_order=True).sentence_score(written, [wanted])
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def _count_letters(written: str, wanted: str) -> list[int]:
    """chrF's counts, spaces left out."""
    counts = []
    for order in range(1, _LETTERS + 1):
        own, theirs = (_grams("".join(text.split()), order) for text in (written, wanted))
        # A reference too short for an order says nothing of it, as sacrebleu has it.
        counts += [own.total() if theirs else 0, theirs.total(), (own & theirs).total()]
    return counts


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def bleu(predictions: Found, targets: NDArray[np.int64]) -> float:  # noqa: ARG001 - one shape for all metrics
    """Corpus BLEU, 0 to 100, as sacrebleu counts: 4 orders, tokenizer 13a, exponential smoothing."""
    sums = predictions[:, _BLEU].sum(0)
    counts, totals, (written, wanted) = sums[:_ORDERS], sums[_ORDERS : 2 * _ORDERS], sums[2 * _ORDERS :]
    if not written or not counts.any():
        return 0.0
    logs, smoothing = [], 1.0
    for count, total in zip(counts, totals, strict=True):
        if not total:
            return 0.0
        if not count:
            smoothing *= 2
        logs.append(math.log(count / total if count else 1 / (smoothing * total)))
    brevity = min(0.0, 1 - wanted / written)
    return 100 * math.exp(brevity + sum(logs) / _ORDERS)


def chrf(predictions: Found, targets: NDArray[np.int64]) -> float:  # noqa: ARG001
    """Corpus chrF2, 0 to 100, as sacrebleu counts: 6 orders of letters, no words."""
    sums = predictions[:, _CHRF].sum(0).reshape(_LETTERS, 3)
    known = sums[(sums[:, 0] > 0) & (sums[:, 1] > 0)]
    if not len(known):
        return 0.0
    precision, recall = (known[:, 2] / known[:, 0]).mean(), (known[:, 2] / known[:, 1]).mean()
    below = _BETA**2 * precision + recall
    return float(100 * (1 + _BETA**2) * precision * recall / below) if below else 0.0


def exact_match(predictions: Found, targets: NDArray[np.int64]) -> float:  # noqa: ARG001
    """Share of translations that are the reference, letter for letter."""
    return float(predictions[:, _EXACT].mean())


TRANSLATION_METRICS: dict[str, MetricFunction] = {
    "bleu": bleu,
    "chrf": chrf,
    "exact_match": exact_match,
    "perplexity": perplexity,
    "token_accuracy": token_accuracy,
}
