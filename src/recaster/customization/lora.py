"""LoRA and its kin: low-rank updates beside frozen weights, by peft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from recaster.customization.adapters import add_adapter, merge_adapter
from recaster.customization.base_bits import prepare_bits
from recaster.customization.protocol import PlainMethod
from recaster.models.open_models import Targeted


class Lora(PlainMethod):
    """Train adapters and the head; merged into the weights on export."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """Put the recipe's adapters into the model's network."""
        from peft import LoraConfig

        section = plan["customize"]["lora"]
        if section["base_bits"] is not None:
            prepare_bits(model, section["base_bits"])
        variant = section["variant"]
        config = LoraConfig(
            r=section["rank"],
            lora_alpha=section["alpha"],
            lora_dropout=section["dropout"],
            target_modules=_targets(section["targets"], model),
            use_rslora=variant == "rslora",
            use_dora=variant == "dora",
            init_lora_weights="pissa" if variant == "pissa" else True,
        )
        return add_adapter(model, config, where="customize.lora.targets")

    def merge(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """The updates added to the weights they stand beside."""
        return merge_adapter(model)


def _targets(named: list[str], model: nn.Module) -> str | list[str] | None:
    if not named:  # of transformers' models peft knows the usual ones
        return model.adapter_targets() if isinstance(model, Targeted) else None
    return "all-linear" if named == ["all-linear"] else list(named)


METHOD = Lora()
