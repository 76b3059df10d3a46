"""Direct preference optimization (Rafailov et al. 2023, equation 7), over pairs of replies.

loss = -log sigmoid(beta x ((log p - log p_base)(chosen) - (log p - log p_base)(rejected)))

Targets are `(pairs, 2, 1 + tokens)`: the base's log-probability (nats) of a reply, then its tokens, filled
up with NO_TARGET; chosen first. Logits are `(pairs, 2, tokens, vocabulary)`. A reply's log-probability is the
sum over its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from recaster.models.losses import NO_TARGET, LossSum


def build_preference_loss(section: Mapping[str, Any], *, training: bool) -> LossSum:
    """The loss of a recipe's `train.loss` section, summed over pairs.

    Args:
        training: with label smoothing, the share of pairs that are taken to be the wrong way round; a
            validation is measured without.
    """
    beta, smoothing = section["beta"], section["label_smoothing"] if training else 0.0

    def loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
        margins = beta * measure_margins(logits, targets)
        right, wrong = F.logsigmoid(margins), F.logsigmoid(-margins)
        return -((1 - smoothing) * right + smoothing * wrong).sum()

    return loss_sum


def count_preferred(logits: Tensor, targets: Tensor) -> Tensor:
    """Pairs of which the chosen reply has the larger implicit reward, shape `()`."""
    return (measure_margins(logits, targets) > 0).sum()


def measure_margins(logits: Tensor, targets: Tensor) -> Tensor:
    """By how many nats more the model has moved towards the chosen reply than towards the rejected one,
    `(pairs,)`.
    """
    wanted = targets[..., 1:].long()
    nats = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none", ignore_index=NO_TARGET)
    moved = -nats.view(wanted.shape).sum(2) - targets[..., 0].to(nats.dtype)
    return moved[:, 0] - moved[:, 1]
