"""A frozen base in 4 or 8 bits, by bitsandbytes (QLoRA, Dettmers et al. 2023): on a GPU, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from recaster.core.errors import RecipeError
from recaster.models.open_models import OpenModel


def base_options(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Options of transformers' `from_pretrained` for the plan's base: none, or how to keep it in few bits.

    Raises:
        RecipeError: this machine has no GPU, or not the library.
    """
    customize = plan.get("customize", {})
    bits = customize["lora"]["base_bits"] if customize.get("method") == "lora" else None
    if bits is None:
        return {}
    _check_machine(bits)
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def in_full(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with its base in full precision: what adapters are merged into."""
    customize = dict(plan.get("customize", {}))
    if customize.get("method") == "lora":
        customize["lora"] = {**customize["lora"], "base_bits": None}
    return {**plan, "customize": customize}


def prepare_bits(model: nn.Module, bits: int) -> None:
    """Make a base that was loaded in few bits ready for adapters: norms in float32, gradients at its input.

    Raises:
        RecipeError: this machine, or the workload, does not keep its base in few bits.
    """
    _check_machine(bits)
    network: Any = model.network if isinstance(model, OpenModel) else model
    if not getattr(network, "is_quantized", False):
        raise RecipeError(
            "This workload does not keep its base in few bits.",
            where="customize.lora.base_bits",
            value=bits,
            repair="remove it: the base then stays in the recipe's precision",
        )
    from peft import prepare_model_for_kbit_training

    prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)


def _check_machine(bits: int) -> None:
    from importlib.util import find_spec

    has_gpu = torch.cuda.is_available()
    if has_gpu and find_spec("bitsandbytes") is not None:
        return
    raise RecipeError(
        f"A base in {bits} bits needs {'the package bitsandbytes' if has_gpu else 'a CUDA GPU'}.",
        where="customize.lora.base_bits",
        value=bits,
        repair="remove it: the base then stays in the recipe's precision; or train on a machine that has it",
    )
