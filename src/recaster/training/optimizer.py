"""The recipe's `optimizer` section as one of torch's optimizers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from recaster.distributed.gradients import group_by_layout


def build_optimizer(model: nn.Module, section: dict[str, Any]) -> torch.optim.Optimizer:
    """The update rule over this rank's share of the model.

    The fused update takes one kind of tensor at a time, so that each layout is a group of its own.
    """
    groups = [{"params": group} for group in group_by_layout(model.parameters())]
    if section["name"] == "sgd":
        return torch.optim.SGD(
            groups,
            lr=section["learning_rate"],
            momentum=section["momentum"],
            weight_decay=section["weight_decay"],
        )
    return torch.optim.AdamW(
        groups, lr=section["learning_rate"], weight_decay=section["weight_decay"], fused=True
    )
