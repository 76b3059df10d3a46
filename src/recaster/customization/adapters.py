"""What methods of the peft library share: adapters into a model's network, and out again."""

from __future__ import annotations

from typing import Any

from torch import nn

from recaster.core.errors import RecipeError
from recaster.models.open_models import Headed, OpenModel


def add_adapter(model: nn.Module, config: Any, *, where: str) -> nn.Module:
    """`model` with the adapter of a peft `config` in its network; all else but the head is frozen.

    Args:
        where: the recipe's key, for messages.

    Raises:
        RecipeError: the adapter does not fit the model.
    """
    from peft import get_peft_model

    head = model.head_names() if isinstance(model, Headed) else []
    network = model.network if isinstance(model, OpenModel) else model
    try:
        adapted = get_peft_model(network, config)
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            "The adapter does not fit this model.",
            where=where,
            value=str(error).splitlines()[0],
            repair="name modules of the model, such as query and value, or `all-linear`",
        ) from error
    for name in head:
        network.get_submodule(name.removeprefix("network.")).requires_grad_(True)
    if not isinstance(model, OpenModel):
        whole: nn.Module = adapted
        return whole
    model.network = adapted
    return model


def merge_adapter(model: nn.Module) -> nn.Module:
    """`model` without its adapter, whose effect is now in the weights."""
    if not isinstance(model, OpenModel):
        merged: nn.Module = model.merge_and_unload()  # type: ignore[operator]
        return merged
    model.network = model.network.merge_and_unload()  # type: ignore[operator]
    return model
