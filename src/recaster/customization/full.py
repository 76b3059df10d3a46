"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from recaster.customization.protocol import PlainMethod


class Full(PlainMethod):
    """The model as it is."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """All weights train; rates that differ by layer and gradual unfreezing are the optimizer's."""
        return model


METHOD = Full()
