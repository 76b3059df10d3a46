"""LoRA and its kin: low-rank updates beside frozen weights, by peft."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from recaster.core.errors import RecipeError
from recaster.customization.adapters import add_adapter, merge_adapter
from recaster.customization.protocol import PlainMethod
from recaster.models.open_models import Targeted


class Lora(PlainMethod):
    """Train adapters and the head; merged into the weights on export."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """Put the recipe's adapters into the model's network."""
        from peft import LoraConfig

        section = plan["customize"]["lora"]
        if section["base_bits"] is not None:
            _refuse_bits(section["base_bits"])
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


def _refuse_bits(bits: int) -> None:
    from importlib.util import find_spec

    lacking = "a CUDA GPU" if not torch.cuda.is_available() else "the package bitsandbytes"
    if torch.cuda.is_available() and find_spec("bitsandbytes") is not None:
        return
    raise RecipeError(
        f"A base in {bits} bits needs {lacking}.",
        where="customize.lora.base_bits",
        value=bits,
        repair="remove it: the base then stays in the recipe's precision; or train on a machine that has it",
    )


METHOD = Lora()
