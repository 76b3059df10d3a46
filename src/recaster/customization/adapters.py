"""What methods of the peft library share: adapters into a model's network, and out again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from recaster.core.errors import RecipeError
from recaster.customization.protocol import PlainMethod
from recaster.models.causal_models import CausalModel
from recaster.models.open_models import NamedHead, OpenModel


def add_adapter(model: nn.Module, config: Any, *, where: str) -> nn.Module:
    """`model` with the adapter of a peft `config` in its network; all else but the head is frozen.

    Args:
        where: the recipe's key, for messages.

    Raises:
        RecipeError: the adapter does not fit the model.
    """
    from peft import get_peft_model

    head = model.head_names() if isinstance(model, NamedHead) else []
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
    _refuse_tied(network, adapted, where)
    for name in head:
        network.get_submodule(name.removeprefix("network.")).requires_grad_(True)
    if not isinstance(model, OpenModel):
        whole: nn.Module = adapted
        return whole
    model.network = adapted
    return model


def _refuse_tied(network: Any, adapted: Any, where: str) -> None:
    """Embeddings that input and output share cannot take an update for one of them and be merged."""
    if not getattr(getattr(network, "config", None), "tie_word_embeddings", False):
        return
    ends = (adapted.get_input_embeddings(), adapted.get_output_embeddings())
    if any(hasattr(end, "base_layer") for end in ends):
        raise RecipeError(
            "Input and output embeddings of this base are one table, which an update of either would change.",
            where=where,
            value="the embeddings, or the head, are among the targets",
            repair="name modules of the layers, or `all-linear`, which leaves the head out",
        )


def add_prompt(model: nn.Module, config: Any, *, method: str) -> nn.Module:
    """`model` with trained vectors that a peft `config` puts before each text; all else is frozen.

    Raises:
        RecipeError: the model is no causal language model.
    """
    from peft import get_peft_model

    if not isinstance(model, CausalModel):
        raise RecipeError(
            "Trained prompts are for causal language models.",
            where="customize.method",
            value=f"{method} with {type(model).__name__}",
            repair="use lora, or full",
        )
    model.network = get_peft_model(model.network, config)
    return model


def stays_apart(model: nn.Module) -> bool:
    """Whether the trained `model` has a prompt, which cannot become part of its weights."""
    return isinstance(model, OpenModel) and hasattr(model.network, "prompt_encoder")


class KeptApart(PlainMethod):
    """A method whose trained vectors have no place among the base's weights."""

    def merge(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """There is no such form.

        Raises:
            RecipeError: always.
        """
        raise RecipeError(
            "A trained prompt cannot be merged into the weights.",
            where="customize.method",
            value=plan["customize"]["method"],
            repair="use the exported folder, which keeps it beside its base; or lora, which can be merged",
        )


def merge_adapter(model: nn.Module) -> nn.Module:
    """`model` without its adapter, whose effect is now in the weights."""
    if not isinstance(model, OpenModel):
        merged: nn.Module = model.merge_and_unload()  # type: ignore[operator]
        return merged
    model.network = model.network.merge_and_unload()  # type: ignore[operator]
    return model
