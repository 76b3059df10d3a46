"""Prefix tuning: trained keys and values before each layer's own (Li and Liang 2021), by peft.

They begin as what the base has for the first tokens of the training split: random ones take most of a short
training to become harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
        adapted = add_prompt(model, config, method="prefix")
        _begin_with_text(adapted, Path(plan["prepared"]) / "train.tokens.npy", config.num_virtual_tokens)
        return adapted


@torch.no_grad()
def _begin_with_text(model: nn.Module, tokens: Path, length: int) -> None:
    from peft import initialize_kv_prefix_from_past_key_values

    network: Any = model.network
    first = np.resize(np.load(tokens, mmap_mode="r")[:length], length).astype(np.int64)
    training = network.training
    with network.disable_adapter():
        told = network.eval()(input_ids=torch.from_numpy(first)[None], use_cache=True)
    initialize_kv_prefix_from_past_key_values(network, past_key_values=told.past_key_values)
    network.train(training)


METHOD = PrefixTuning()
