"""What is measured of a chat model: how well it foresees replies, and how its own ones read.

Predictions are `(conversations, 2)`: nats of the learned tokens, and how many of them the best guess hits;
targets are `(conversations,)`: how many tokens are learned, by the tokenizer of the prepared data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.metrics import MetricFunction

_REPEATED_WORDS = 4


def perplexity(predictions: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """exp of the mean nats a learned token, over all conversations together."""
    return math.exp(min(predictions[:, 0].sum() / targets.sum(), 700.0))


def token_accuracy(predictions: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Share of learned tokens that are the best guess after the true ones before them."""
    return float(predictions[:, 1].sum() / targets.sum())


CHAT_METRICS: dict[str, MetricFunction] = {"perplexity": perplexity, "token_accuracy": token_accuracy}


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


def report_conversations(
    predictions: NDArray[np.float64], targets: NDArray[np.int64], folder: Path
) -> dict[str, Any]:
    """Write `perplexity.png`, conversations by their own perplexity; return its quartiles."""
    from matplotlib.figure import Figure

    each = np.exp(np.minimum(predictions[:, 0] / targets, 700.0))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(np.log10(each), bins=30)
    axes.set(
        xlabel="log10 of a conversation's perplexity", ylabel="conversations", title="Held-out conversations"
    )
    figure.savefig(folder / "perplexity.png", dpi=110)
    low, middle, high = np.quantile(each, [0.25, 0.5, 0.75])
    tokens = int(targets.sum())
    return {
        "conversations": {"learned_tokens": tokens, "quarter": low, "median": middle, "three_quarters": high}
    }
