"""Two passes of each row under different dropout, which are to agree (R-Drop, Liang et al. 2021).

rows ─► twice ─► model ─► two answers a row ─► mean of their losses + weight x mean of both divergences
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.losses import NO_TARGET, LossSum


def answer_twice(model: nn.Module) -> None:
    """Let `model` answer each row twice in training: `(rows, …, 2 x classes)`, one after the other.

    By hooks, so that parameters keep their names. Doubles a step's time and its activations.
    """
    model.register_forward_pre_hook(_repeat_rows)
    model.register_forward_hook(_lay_side_by_side)


def _repeat_rows(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.cat([value, value]) for value in inputs) if model.training else inputs


def _lay_side_by_side(model: nn.Module, _: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
    return torch.cat(outputs.chunk(2), -1) if model.training else outputs


def consistent_loss(loss_sum: LossSum, weight: float) -> LossSum:
    """The loss over two answers a row.

    Args:
        weight: of the divergences (nats a target) beside the mean of the losses; half of the paper's alpha.
    """

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        one, other = outputs.chunk(2, -1)
        losses = (loss_sum(one, targets) + loss_sum(other, targets)) / 2
        return losses + weight * _divergence(one, other, targets)

    return loss


def _divergence(one: Tensor, other: Tensor, targets: Tensor) -> Tensor:
    """Mean of the divergences from one to the other and back, summed over the targets that count."""
    if targets.ndim < one.ndim and targets.ndim > 1:  # tokens, some of which are not learned
        learned = targets != NO_TARGET
        one, other = one[learned], other[learned]
    logs = [F.log_softmax(value.float(), -1) for value in (one, other)]
    there = F.kl_div(logs[0], logs[1], reduction="sum", log_target=True)
    back = F.kl_div(logs[1], logs[0], reduction="sum", log_target=True)
    return (there + back) / 2
