"""Pruning: what matters least is left out first, then what is left is trained.

weights   0.31 -0.02  0.87   →   0.31  0  0.87      by magnitude over all layers (Han et al. 2015); as large
neurons   up (width → units), down (units → width)   →   fewer units in each layer: smaller and faster
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from recaster.core.errors import RecipeError
from recaster.customization.protocol import PlainMethod
from recaster.models.open_models import OpenModel

_UNITS = ("intermediate_size", "hidden_dim", "ffn_dim")
"""How configurations call the units of a feed-forward layer."""


class Mask(nn.Module):
    """Keeps some entries of a weight at zero, whatever the optimizer makes of them."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        # Made again from the base by `apply`: no part of checkpoints.
        self.register_buffer("kept", kept, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """`weight` with zeros."""
        return torch.where(self.kept, weight, 0.0)  # type: ignore[arg-type]


class Prune(PlainMethod):
    """Leave out weights or whole units by the base's own values, then train all that is left."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:
        """`model` with zeros, or with fewer units."""
        section = plan["customize"]["prune"]
        if section["structure"] == "neurons":
            _drop_neurons(model, section["fraction"])
        else:
            _mask_weights(model, section["fraction"])
        return model

    def merge(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """The zeros among the weights."""
        for module in model.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
        return model


@torch.no_grad()
def _mask_weights(model: nn.Module, fraction: float) -> None:
    """Of all layers' matrices and kernels together the smallest; embeddings and the head stay whole."""
    inside = model.blocks()[1] if isinstance(model, OpenModel) else model
    layers = [part for part in inside.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    if inside is model:
        layers = layers[:-1]  # the head
    sizes = torch.cat([layer.weight.abs().flatten() for layer in layers])
    limit = sizes.kthvalue(max(1, round(fraction * sizes.numel()))).values
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Mask(layer.weight.abs() > limit))


@torch.no_grad()
def _drop_neurons(model: nn.Module, fraction: float) -> None:
    """In each layer the units whose weights, in and out, have the smallest norms."""
    if not isinstance(model, OpenModel):
        raise _cannot_say(model)
    config = model.config
    name = next((name for name in _UNITS if hasattr(config, name)), None)
    if name is None:
        raise _cannot_say(model)
    units = int(getattr(config, name))
    kept = units - round(fraction * units)
    if not 0 < kept < units:
        raise RecipeError(
            "This share of the units is none or all of them.",
            where="customize.prune.fraction",
            value=f"{fraction} of {units}",
            repair=f"choose a share between {1 / units:.4f} and {1 - 1 / units:.4f}",
        )
    for block in model.blocks()[1]:
        linear = [part for part in block.modules() if isinstance(part, nn.Linear)]
        ups = [part for part in linear if part.out_features == units]
        downs = [part for part in linear if part.in_features == units]
        if len(downs) != 1 or not ups or downs[0] in ups:
            raise _cannot_say(model)
        down = downs[0]
        # What a unit takes in times what it gives: with either at nought it does nothing.
        weighs = down.weight.norm(dim=0) * torch.stack([_norm_in(up) for up in ups]).prod(0)
        rows = weighs.topk(kept).indices.sort().values
        for up in ups:
            _keep(up, rows, dim=0)
        _keep(down, rows, dim=1)
    setattr(config, name, kept)


def _cannot_say(model: nn.Module) -> RecipeError:
    return RecipeError(
        "The configuration of this architecture cannot say how many units are left.",
        where="customize.prune.structure",
        value=f"neurons with {type(model).__name__}",
        repair="use structure weights, or a transformer whose feed-forward layers are wider than the rest",
    )


def _norm_in(layer: nn.Linear) -> Tensor:
    """Of each unit's row and bias, shape `(units,)`."""
    square = layer.weight.square().sum(1)
    return (square if layer.bias is None else square + layer.bias.square()).sqrt()


def _keep(layer: nn.Linear, rows: Tensor, *, dim: int) -> None:
    """Leave `rows` of the layer's outputs (dim 0) or inputs (dim 1)."""
    layer.weight = nn.Parameter(layer.weight.index_select(dim, rows))
    if dim == 0 and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.index_select(0, rows))
    layer.out_features, layer.in_features = layer.weight.shape


METHOD = Prune()
