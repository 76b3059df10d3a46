"""BitFit: biases and the head alone (Zaken et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from recaster.core.errors import RecipeError
from recaster.customization.protocol import PlainMethod, freeze_all_but
from recaster.models.open_models import NamedHead


class BitFit(PlainMethod):
    """A few values in a thousand are trained, and the model keeps its form."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """Freeze all but biases and, where there is one, the head."""
        head = model.head_names() if isinstance(model, NamedHead) else []
        biases = [name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias"]
        if not biases:
            raise RecipeError(
                "This model has no biases to train.",
                where="customize.method",
                value=f"bitfit with {type(model).__name__}",
                repair="use lora, or full",
            )
        freeze_all_but(model, [*head, *biases])
        return model


METHOD = BitFit()
