"""Losses by name, summed over targets so that unequal micro-batches weigh right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recaster.core.targets import OUT_OF_SCOPE

LossSum = Callable[[Tensor, Tensor], Tensor]
"""Loss summed over the targets of (logits `(rows, classes)`, targets), shape `()`. Targets are class numbers
`(rows,)`; for cross-entropy and brier they may be the classes' shares `(rows, classes)`. Of texts the shapes
are `(rows, tokens, classes)` and `(rows, tokens)`."""
NO_TARGET = -100
"""Stands where a token is not learned."""


def build_loss(section: Mapping[str, Any], *, training: bool) -> LossSum:
    """The loss of a recipe's `train.loss` section.

    Args:
        training: with label smoothing; validation is measured without, in the loss's own unit.
    """
    name, told = section["name"], section["class_weights"] if training else None
    weights = None if told is None else torch.tensor(told)
    if name == "cross-entropy":
        smoothing = section["label_smoothing"] if training else 0.0
        if (share := section.get("outlier_weight")) is not None:
            share = share if training else 0.0
            return partial(_with_outliers, weights=weights, smoothing=smoothing, share=share)
        return lambda logits, targets: F.cross_entropy(
            logits,
            targets,
            weight=_beside(weights, logits),
            reduction="sum",
            label_smoothing=smoothing,
        )
    if name == "binary-cross-entropy":
        return partial(_binary, weights=weights)
    gamma = section["gamma"]
    by_row: dict[str, LossSum] = {
        "focal": lambda logits, targets: _focal(logits, targets, gamma),
        "margin": _margin,
        "brier": _brier,
    }
    return partial(_weigh, by_row[name], weights=weights)


def count_correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Rows whose largest logit is the target's, or of which all labels are told; shape `()`."""
    if targets.ndim == 2:
        return ((logits > 0) == (targets > 0)).all(1).sum()
    return (logits.argmax(1) == targets).sum()


def to_probabilities(logits: Tensor, targets: Tensor) -> Tensor:
    """`(rows, classes)` as float64, that sum to 1 a row; where rows have several labels, each for itself."""
    logits = logits.double()
    return logits.sigmoid() if targets.ndim == 2 else logits.softmax(1)


def build_token_loss(section: Mapping[str, Any], *, training: bool) -> LossSum:
    """The loss of a recipe's `train.loss` section over the tokens that are learned."""
    if section["name"] == "cross-entropy":  # without a copy of the logits, which are large
        smoothing = section["label_smoothing"] if training else 0.0
        return lambda logits, targets: F.cross_entropy(
            logits.flatten(0, 1),
            targets.flatten(),
            reduction="sum",
            ignore_index=NO_TARGET,
            label_smoothing=smoothing,
        )
    loss_sum = build_loss(section, training=training)

    def over_tokens(logits: Tensor, targets: Tensor) -> Tensor:
        learned = targets != NO_TARGET
        return loss_sum(logits[learned], targets[learned])

    return over_tokens


def _beside(weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(logits)


def _binary(logits: Tensor, targets: Tensor, *, weights: Tensor | None) -> Tensor:
    """Cross entropy of each label being there, in nats, mean over labels."""
    each = F.binary_cross_entropy_with_logits(
        logits, targets.to(logits), pos_weight=_beside(weights, logits), reduction="none"
    )
    return each.mean(1).sum()


def _weigh(of_rows: LossSum, logits: Tensor, targets: Tensor, *, weights: Tensor | None) -> Tensor:
    """The sum over rows, each weighed by its class (or by its shares of them)."""
    each = of_rows(logits, targets)
    if weights is None:
        return each.sum()
    own = weights.to(logits)
    return (each * (targets @ own if targets.is_floating_point() else own[targets])).sum()


def _with_outliers(
    logits: Tensor, targets: Tensor, *, weights: Tensor | None, smoothing: float, share: float
) -> Tensor:
    """Cross entropy of rows with a label, and `share` times that of the others to equal probabilities."""
    each = F.cross_entropy(
        logits,
        targets.clamp(min=0),
        weight=_beside(weights, logits),
        reduction="none",
        label_smoothing=smoothing,
    )
    # Without a mask's indexing, for which a GPU would have to be waited.
    even = -F.log_softmax(logits, 1).mean(1)
    return torch.where(targets == OUT_OF_SCOPE, share * even, each).sum()


def _focal(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Cross entropy in nats, each target weighed by (1 - its probability) ** gamma (Lin et al. 2017)."""
    likelihood = F.log_softmax(logits, 1).gather(1, targets[:, None])[:, 0]
    return -((1 - likelihood.exp()) ** gamma * likelihood)


def _margin(logits: Tensor, targets: Tensor) -> Tensor:
    """By how much other logits come within 1 of the target's, mean over classes."""
    return F.multi_margin_loss(logits, targets, reduction="none")


def _brier(logits: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the probabilities from the target's corner (Brier 1950)."""
    wanted = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    return torch.square(logits.softmax(1) - wanted).sum(1)
