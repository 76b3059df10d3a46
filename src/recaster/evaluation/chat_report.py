"""How a chat model's own replies read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

_REPEATED_WORDS = 4


def measure_replies(replies: Sequence[str]) -> dict[str, float]:
    """How a model's own replies read, by words between spaces.

    Returns:
        distinct_1, distinct_2: different words, and pairs of them, as a share of all (Li et al. 2016);
        repetition: share of runs of four words that occurred before in the same reply;
        words: mean of a reply; empty: share of replies without a word.
    """
    words = [reply.split() for reply in replies]
    return {
        "distinct_1": _distinct([_runs(one, 1) for one in words]),
        "distinct_2": _distinct([_runs(one, 2) for one in words]),
        "repetition": _repetition(words),
        "words": float(np.mean([len(one) for one in words])),
        "empty": float(np.mean([not one for one in words])),
    }


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def _distinct(runs: Sequence[Sequence[tuple[str, ...]]]) -> float:
    counts = Counter(run for one in runs for run in one)
    return len(counts) / counts.total() if counts else 0.0


def _repetition(words: Sequence[Sequence[str]]) -> float:
    runs = [_runs(one, _REPEATED_WORDS) for one in words]
    total = sum(len(one) for one in runs)
    return sum(len(one) - len(set(one)) for one in runs) / total if total else 0.0
