"""Losses by name, summed over targets so that unequal micro-batches weigh right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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
    name = section["name"]
    if name == "cross-entropy":
        smoothing = section["label_smoothing"] if training else 0.0
        return lambda logits, targets: F.cross_entropy(
            logits, targets, reduction="sum", label_smoothing=smoothing
        )
    if name == "focal":
        gamma = section["gamma"]
        return lambda logits, targets: _focal(logits, targets, gamma)
    return {"margin": _margin, "brier": _brier}[name]


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


def _focal(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Cross entropy in nats, each target weighed by (1 - its probability) ** gamma (Lin et al. 2017)."""
    likelihood = F.log_softmax(logits, 1).gather(1, targets[:, None])[:, 0]
    return -((1 - likelihood.exp()) ** gamma * likelihood).sum()


def _margin(logits: Tensor, targets: Tensor) -> Tensor:
    """By how much other logits come within 1 of the target's, mean over classes."""
    return F.multi_margin_loss(logits, targets, reduction="sum")


def _brier(logits: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of the probabilities from the target's corner (Brier 1950)."""
    wanted = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    return torch.square(logits.softmax(1) - wanted).sum()
