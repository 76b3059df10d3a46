"""Prompt tuning: trained vectors before each text's embeddings (Lester et al. 2021), by peft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from recaster.customization.adapters import KeptApart, add_prompt


class PromptTuning(KeptApart):
    """The base stays as it is, and is exported with what was trained beside it."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """Put vectors that begin as random tokens' embeddings before each text."""
        from peft import PromptTuningConfig

        config = PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=plan["customize"]["prompt"]["tokens"],
            prompt_tuning_init="SAMPLE_VOCAB",  # better than noise, by the paper
        )
        return add_prompt(model, config, method="prompt")


METHOD = PromptTuning()
