"""What is done to a whole model before it is shared out: freezing, layouts, recomputing, kernels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from recaster.core.errors import RecipeError
from recaster.customization.freezing import freeze_parameters
from recaster.distributed.strategies.share import list_blocks
from recaster.training.depthwise import quicken_depthwise


def prepare_model(model: nn.Module, train: Mapping[str, Any]) -> None:
    """Change `model` in place as the recipe's `train` section says.

    Raises:
        RecipeError: a pattern of `freeze` names no parameter, or there are no blocks to recompute.
    """
    freeze_parameters(model, train["freeze"])
    if train["channels_last"]:
        # torch's own types leave the memory format's `to` out
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if train["activation_checkpointing"]:
        _recompute_blocks(model)
    quicken_depthwise(model)
    if train["compile"]:
        model.compile()


def _recompute_blocks(model: nn.Module) -> None:
    blocks = list_blocks(model)
    if not blocks:
        raise RecipeError(
            "This model has no blocks whose activations could be computed again.",
            where="train.activation_checkpointing",
            value=type(model).__name__,
            repair="set it to false",
        )
    for block in blocks:
        # In place of torch's wrapper module, which would change the parameters' names.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
