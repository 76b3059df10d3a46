"""Prefix tuning: trained keys and values before each layer's own (Li and Liang 2021), by peft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from recaster.core.errors import RecipeError
from recaster.customization.adapters import KeptApart, add_prompt


class PrefixTuning(KeptApart):
    """The base stays as it is, and is exported with what was trained beside it."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """Put trained keys and values before those of each layer."""
        from peft import PrefixTuningConfig

        if plan["train"]["activation_checkpointing"]:
            raise RecipeError(
                "A prefix is kept in the cache, which recomputing a block would fill twice.",
                where="train.activation_checkpointing",
                value=True,
                repair="set it to false, or use method prompt",
            )
        config = PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=plan["customize"]["prompt"]["tokens"]
        )
        return add_prompt(model, config, method="prefix")


METHOD = PrefixTuning()
