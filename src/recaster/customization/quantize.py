"""Quantization-aware training: the model learns with the rounding that an int8 export brings.

weights       each output's row or kernel on 255 levels around nought       always
activations   each input of a layer on 256 levels over its range            in training alone

The gradient passes the rounding as if it were not there (Bengio et al. 2013; Jacob et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from recaster.customization.protocol import PlainMethod

_LEVELS = 127
"""On either side of nought; the grid of onnxruntime's symmetric int8 weights."""


class Rounded(nn.Module):
    """A weight on its int8 grid, one scale for each output (dim 0)."""

    def forward(self, weight: Tensor) -> Tensor:
        """The nearest values of the grid."""
        largest = weight.detach().abs().flatten(1).amax(1).clamp_min(1e-12)
        scale = (largest / _LEVELS).reshape(-1, *[1] * (weight.ndim - 1))
        rounded = (weight.detach() / scale).round() * scale
        return weight + (rounded - weight.detach())


class Quantize(PlainMethod):
    """Train every weight; what comes out is on the int8 grid already, so that rounding it again is free."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """Matrices and kernels on their grid, and layers whose inputs are rounded in training."""
        for layer in _layers(model):
            parametrize.register_parametrization(layer, "weight", Rounded())
            layer.register_forward_pre_hook(_round_input)
        return model

    def merge(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """The rounded weights as they are."""
        for layer in _layers(model):
            parametrize.remove_parametrizations(layer, "weight")
            for key, hook in list(layer._forward_pre_hooks.items()):
                if hook is _round_input:
                    del layer._forward_pre_hooks[key]
        return model


def _layers(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d)]


def _round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """As onnxruntime's DynamicQuantizeLinear does: one scale for the tensor, nought among the levels."""
    if not layer.training:
        return None
    given, *rest = inputs
    value = given.detach().float()
    low, high = value.amin().clamp_max(0), value.amax().clamp_min(0)
    scale = ((high - low) / 255).clamp_min(1e-12)
    zero = (-low / scale).round()
    rounded = ((value / scale + zero).round().clamp(0, 255) - zero) * scale
    return given + (rounded.to(given.dtype) - given.detach()), *rest


METHOD = Quantize()
