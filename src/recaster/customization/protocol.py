"""What a customization method is to training and to the export, and nothing more.

Adding one is one module of this package with a `METHOD`, its name in `recipe/customize.py`, and a row of the
table in docs/howto/customize.md; tests/contract/test_methods.py finds and examines it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from recaster.models.losses import LossSum


class Method(Protocol):
    """How a model is changed before training, and back after it."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """`model` in the form that is trained; what stays as it is has `requires_grad` off.

        It is a function of the model, the plan and torch's present random state alone: the export calls it
        again, and then takes up the trained weights by their names.

        Raises:
            RecipeError: the method does not fit this model or this machine.
        """

    def merge(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """`apply`'s result, trained, as a model of the usual form that answers the same.

        Raises:
            RecipeError: there is no such form; what was trained is exported beside its base.
        """

    def build_loss(self, loss_sum: LossSum, plan: Mapping[str, Any]) -> LossSum:
        """The loss over the outputs of `apply`'s result in training mode, from the workload's own."""

    def inputs(self, plan: Mapping[str, Any]) -> Path | None:
        """The folder whose rows are trained on in place of the prepared ones; None for these."""


class PlainMethod:
    """A method that only changes the model: the usual loss, the prepared rows."""

    def merge(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """Nothing to undo."""
        return model

    def build_loss(self, loss_sum: LossSum, plan: Mapping[str, Any]) -> LossSum:  # noqa: ARG002
        """The workload's own."""
        return loss_sum

    def inputs(self, plan: Mapping[str, Any]) -> Path | None:  # noqa: ARG002
        """The prepared rows."""
        return None


def load_method(plan: Mapping[str, Any]) -> Method:
    """The method of the plan's `customize` section; full training for a plan without one."""
    name = plan.get("customize", {}).get("method", "full")
    method: Method = importlib.import_module(f"recaster.customization.{name}").METHOD
    return method


def freeze_all_but(model: nn.Module, kept: list[str]) -> None:
    """Take every parameter out of training but those of modules (or parameters) whose names begin so."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name == head or name.startswith(f"{head}.") for head in kept))
