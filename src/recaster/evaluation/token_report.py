"""What is measured of a model that foresees tokens.

Predictions begin with two columns: nats of a row's learned tokens, and how many of them the best guess hits;
targets are `(rows,)`: how many tokens are learned, by the tokenizer of the prepared data.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.metrics import MetricFunction


def perplexity(predictions: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """exp of the mean nats a learned token, over all rows together."""
    return math.exp(min(predictions[:, 0].sum() / targets.sum(), 700.0))


def token_accuracy(predictions: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Share of learned tokens that are the best guess."""
    return float(predictions[:, 1].sum() / targets.sum())


TOKEN_METRICS: dict[str, MetricFunction] = {"perplexity": perplexity, "token_accuracy": token_accuracy}


def report_rows(
    predictions: NDArray[np.float64], targets: NDArray[np.int64], folder: Path, *, unit: str
) -> dict[str, Any]:
    """Write `perplexity.png`, rows by their own perplexity; return its quartiles.

    Args:
        unit: what a row is, for people: conversation, text.
    """
    from matplotlib.figure import Figure

    each = np.exp(np.minimum(predictions[:, 0] / targets, 700.0))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(np.log10(each), bins=30)
    axes.set(xlabel=f"log10 of a {unit}'s perplexity", ylabel=f"{unit}s", title=f"Held-out {unit}s")
    figure.savefig(folder / "perplexity.png", dpi=110)
    low, middle, high = np.quantile(each, [0.25, 0.5, 0.75])
    tokens = int(targets.sum())
    return {f"{unit}s": {"learned_tokens": tokens, "quarter": low, "median": middle, "three_quarters": high}}
