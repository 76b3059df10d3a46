"""What is measured of a model that was tuned to prefer one of two replies.

Predictions are `(pairs, 7)`: nats and hits of the chosen reply's tokens, as `token_report` has them; then
log-probabilities (nats) of the chosen and the rejected reply by the model, and by the base; then beta.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from recaster.core.files import read_json
from recaster.data.chat_shards import HeldOut, read_held_out
from recaster.data.preference_shards import read_reference, rejected_of, score_side
from recaster.evaluation.metrics import MetricFunction

_ALIKE = 1e-3
"""Nats: rounding may make a difference of less, as between the base and itself."""


def describe_pairs(
    model: nn.Module, chosen: HeldOut, artifact: Path, prepared: Path, split: str
) -> NDArray[np.float64]:
    """The last five columns of the predictions, `(pairs, 5)`.

    Args:
        model: of marked tokens, out of the folder `artifact`.
        chosen: the split with the chosen replies, as that model's tokenizer reads it.
    """
    rejected = read_held_out(prepared, rejected_of(split), artifact)
    sides = [score_side(model, side.shard, padding=side.padding) for side in (chosen, rejected)]
    about = artifact / "preprocessing.json"
    # A model that was tuned otherwise, such as the base, has no beta of its own.
    beta = read_json(about).get("beta", 1.0) if about.exists() else 1.0
    return np.column_stack([*sides, read_reference(prepared, split), np.full(len(sides[0]), beta)])


def preference_accuracy(predictions: NDArray[np.float64], targets: NDArray[np.int64]) -> float:  # noqa: ARG001
    """Share of pairs of which the chosen reply has the larger implicit reward; of equal ones a half.

    The reward is beta times the log-ratio of model to base (Rafailov et al. 2023): the base itself has a
    half, whatever it would write.
    """
    moved = _moved(predictions)
    return float(np.mean(np.where(np.abs(moved) < _ALIKE, 0.5, moved > 0)))


def reference_free_accuracy(predictions: NDArray[np.float64], targets: NDArray[np.int64]) -> float:  # noqa: ARG001
    """Share of pairs of which the chosen reply is the likelier one, as a whole."""
    return float(np.mean(predictions[:, 2] > predictions[:, 3]))


def reward_margin(predictions: NDArray[np.float64], targets: NDArray[np.int64]) -> float:  # noqa: ARG001
    """By how much the chosen reply's implicit reward is larger, mean."""
    return float(np.mean(predictions[:, 6] * _moved(predictions)))


PREFERENCE_METRICS: dict[str, MetricFunction] = {
    "preference_accuracy": preference_accuracy,
    "reference_free_accuracy": reference_free_accuracy,
    "reward_margin": reward_margin,
}


def report_pairs(predictions: NDArray[np.float64], folder: Path) -> dict[str, dict[str, float]]:
    """Write `rewards.png`; return the mean rewards of both sides.

    Where the chosen replies' is below 0 they became less likely too, only less so than the rejected ones.
    """
    from matplotlib.figure import Figure

    rewards = predictions[:, 6:7] * (predictions[:, 2:4] - predictions[:, 4:6])
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(rewards, bins=30, label=["chosen", "rejected"])
    axes.legend()
    axes.set(xlabel="beta x log-ratio of model to base", ylabel="replies", title="Implicit rewards")
    figure.savefig(folder / "rewards.png", dpi=110)
    chosen, rejected = rewards.mean(0).tolist()
    return {"rewards": {"chosen": chosen, "rejected": rejected}}


def _moved(predictions: NDArray[np.float64]) -> NDArray[np.float64]:
    """See `models.preference_loss.measure_margins`, `(pairs,)`."""
    ratios = predictions[:, 2:4] - predictions[:, 4:6]
    moved: NDArray[np.float64] = ratios[:, 0] - ratios[:, 1]
    return moved
