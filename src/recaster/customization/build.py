"""The model of a plan in the form that is trained, and the trained one in the form that is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from recaster.core.errors import TrainingError
from recaster.core.seeds import derive_seed
from recaster.customization.base_bits import in_full
from recaster.customization.distil import TEACHER
from recaster.customization.freezing import freeze_parameters
from recaster.customization.protocol import load_method


class ModelBuilder(Protocol):
    """The part of a workload that makes a model."""

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The model of the plan: weights of its base, and fresh ones from torch's present random state."""


def build_customized(
    workload: ModelBuilder, plan: dict[str, Any], *, say: Callable[[str], None] | None = None
) -> nn.Module:
    """The plan's model as its method trains it; the same at each call.

    Args:
        say: told what became of the base's weights, and how much is trained.
    """
    torch.manual_seed(derive_seed(plan["train"]["seed"], "weights"))
    model = workload.build_model(plan)
    report = getattr(model, "report", None)
    model = load_method(plan).apply(model, plan)
    if say and report:
        every, trained = count_parameters(model)
        say(f"{report.to_text()}; {trained:,} of {every:,} parameters are trained ({trained / every:.2%})")
    return model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """How many there are, and how many of them are trained; without those of a teacher."""
    counted = [value for name, value in model.named_parameters() if not name.startswith(TEACHER)]
    trained = sum(value.numel() for value in counted if value.requires_grad)
    return sum(value.numel() for value in counted), trained


def rests_on_base(plan: dict[str, Any]) -> bool:
    """Whether the weights that training leaves are only those that it changed; else they are all there are.

    What is frozen is then read from the base and the teacher again.
    """
    return bool(plan.get("base") or plan.get("teacher"))


def load_trained(workload: ModelBuilder, plan: dict[str, Any], weights: Path) -> nn.Module:
    """The trained model of a plan, with its adapter or the like still apart.

    Args:
        weights: the safetensors file that training left: all that is not the base's.

    Raises:
        TrainingError: the file does not fit the plan.
    """
    from safetensors.torch import load_file

    plan = in_full(plan)
    model = build_customized(workload, plan)
    freeze_parameters(model, plan["train"]["freeze"])  # of these too the base has all there is
    missing, unexpected = model.load_state_dict(load_file(weights), strict=False)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    shared = {name for name, _ in model.named_parameters(remove_duplicate=False)} - {
        name for name, _ in model.named_parameters()
    }
    lacking = sorted(trained & set(missing) if rests_on_base(plan) else set(missing) - shared)
    if lacking or unexpected:
        raise TrainingError(
            "The trained weights are not those of this model.",
            where=str(weights),
            value=f"missing: {', '.join(lacking[:3])}; unknown: {', '.join(unexpected[:3])}",
            repair="train again with this version of the recipe",
        )
    return model.eval()


def load_merged(workload: ModelBuilder, plan: dict[str, Any], weights: Path) -> nn.Module:
    """The trained model of a plan in its usual form, with nothing beside its weights."""
    model = load_trained(workload, plan, weights)
    return load_method(plan).merge(model, plan).eval()
