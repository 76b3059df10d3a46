"""The recipe's `optimizer` section as torch's optimizers over groups of parameters.

A group has one rate, one decay and one layout (the fused and foreach updates take one kind of
tensor at a time). Each group keeps its share of the schedule's rate as `rate_share`, and the number of
steps in which it stays as it is as `frozen_steps`; in an alternating model also its `part`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recaster.core.errors import RecipeError
from recaster.distributed.strategies.protocol import Alternating, list_links
from recaster.training.lazy_adam import LazyAdam

_FUSED = {"sgd", "adam", "adamw", "adagrad"}
"""Those whose whole update torch has as one kernel, on the CPU too."""
_KINDS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "rmsprop": torch.optim.RMSprop,
    "adafactor": torch.optim.Adafactor,
    "asgd": torch.optim.ASGD,
    "lazy-adam": LazyAdam,
}
_DENOMINATORS = {"adam", "adamw", "nadam", "radam", "adamax", "adagrad", "adadelta", "rmsprop", "lazy-adam"}
_MOMENTS = {"adam", "adamw", "nadam", "radam", "adamax", "lazy-adam"}

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm)
"""What `norm_bias_factor` is of."""


def build_optimizers(
    model: nn.Module,
    section: Mapping[str, Any],
    *,
    layers: Sequence[str],
    frozen_steps: Mapping[str, int] | None = None,
    part_rates: Mapping[str, float] | None = None,
) -> list[Optimizer]:
    """The update rules over this rank's share of the trainable parameters: one, or two for muon.

    An alternating model has one for each of its parts; their groups name it as `part`.

    Args:
        layers: of the whole model, as `list_layers` names them before it is shared out.
        frozen_steps: of layers that join later, see `unfreezing_steps`.
        part_rates: learning rates of parts that have another than the section's (Heusel et al. 2017).

    Raises:
        ValueError: nothing is trainable.
    """
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if not trainable:
        raise ValueError("all parameters are frozen: there is nothing to train")
    depths = {layer: depth for depth, layer in enumerate(reversed(layers))}
    waits = frozen_steps or {}
    shifts = _norm_biases(model)
    shares = {}
    for name in trainable:
        layer = _layer_of(name, layers)
        share = section["layer_decay"] ** depths.get(layer, 0)
        if name in shifts:
            share *= section["norm_bias_factor"]
        shares[name] = (share, waits.get(layer, 0))
    if isinstance(model, Alternating):
        return _build_for_parts(model, trainable, shares, section, part_rates or {})
    if section["name"] != "muon":
        return [_build(section["name"], _group(trainable, shares, section), section)]
    hidden = _hidden_matrices(model, trainable, layers)
    rest = {name: value for name, value in trainable.items() if name not in hidden}
    muon = torch.optim.Muon(
        _group(hidden, shares, section),
        lr=section["learning_rate"],
        weight_decay=section["weight_decay"],
        momentum=section["momentum"],
        nesterov=section["nesterov"],
        adjust_lr_fn="match_rms_adamw",  # so that one rate serves both
    )
    return [muon, _build("adamw", _group(rest, shares, section), section)] if rest else [muon]


def _build_for_parts(
    model: Alternating,
    trainable: Mapping[str, Tensor],
    shares: Mapping[str, tuple[float, int]],
    section: Mapping[str, Any],
    rates: Mapping[str, float],
) -> list[Optimizer]:
    built = []
    for part in dict.fromkeys(model.turns()):
        own = {name: value for name, value in trainable.items() if name.startswith(f"{part}.")}
        if not own:
            raise ValueError(f"all parameters of the {part} are frozen: it has nothing to train")
        groups = _group(own, shares, section)
        ratio = rates.get(part, section["learning_rate"]) / section["learning_rate"]
        for group in groups:
            group |= {"part": part, "rate_share": group["rate_share"] * ratio}
        built.append(_build(section["name"], groups, section))
    return built


def set_rates(optimizers: Iterable[Optimizer], rate: float, *, step: int) -> None:
    """Give each group its share of `rate` for step `step` (from 1); nothing to those that wait."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate_share"] if step > group["frozen_steps"] else 0.0


def unfreezing_steps(layers: Sequence[str], head: Sequence[str], *, steps_apart: int) -> dict[str, int]:
    """In how many steps each layer stays as it is, when one after the other joins, the last one first.

    Args:
        head: the layers that are trained from the start.
        steps_apart: steps between one layer's start and the start of the layer before it.

    Source: gradual unfreezing of Howard and Ruder, "Universal language model fine-tuning for text
    classification", ACL 2018. A layer that waits has a rate of zero.
    """
    body = [layer for layer in layers if layer not in head]
    return {layer: steps_apart * number for number, layer in enumerate(reversed(body), start=1)}


def skips_on_device(optimizers: Iterable[Optimizer]) -> bool:
    """Whether the updates can be called off by a tensor (`found_inf`), without waiting for the device."""
    return all(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in optimizers)


def _build(name: str, groups: list[dict[str, Any]], section: Mapping[str, Any]) -> Optimizer:
    options: dict[str, Any] = {"lr": section["learning_rate"]}
    if name in _FUSED:
        options["fused"] = True
    if name in _DENOMINATORS:
        options["eps"] = section["epsilon"]
    if name in _MOMENTS:
        options["betas"] = tuple(section["betas"])
    if name in {"sgd", "rmsprop"}:
        options["momentum"] = section["momentum"]
    if name == "sgd":
        options["nesterov"] = section["nesterov"]
    built: Optimizer = _KINDS[name](groups, **options)
    return built


def _group(
    parameters: Mapping[str, Tensor], shares: Mapping[str, tuple[float, int]], section: Mapping[str, Any]
) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, tuple[float, int], float], list[Tensor]] = {}
    for name, value in parameters.items():
        decay = section["weight_decay"] if section["decay_vectors"] or value.ndim > 1 else 0.0
        groups.setdefault((getattr(value, "device_mesh", None), shares[name], decay), []).append(value)
    return [
        {"params": values, "rate_share": share, "frozen_steps": wait, "weight_decay": decay}
        for (_, (share, wait), decay), values in groups.items()
    ]


def list_layers(model: nn.Module) -> list[str]:
    """The names of the modules that count as layers, from the input on: links with parameters."""
    return [name for name in list_links(model) if any(True for _ in model.get_submodule(name).parameters())]


def _layer_of(name: str, layers: Sequence[str]) -> str:
    return next((layer for layer in layers if name.startswith(f"{layer}.")), "")


def check_norm_biases(model: nn.Module, section: Mapping[str, Any]) -> None:
    """Refuse a rate of their own for biases of which the whole `model` has none to train.

    Raises:
        RecipeError: with the repair.
    """
    if section["norm_bias_factor"] == 1:
        return
    trainable = {name for name, value in model.named_parameters() if value.requires_grad}
    if not trainable & _norm_biases(model):
        raise RecipeError(
            "No normalisation layer of the model has a bias that is trained.",
            where="train.optimizer.norm_bias_factor",
            value=str(section["norm_bias_factor"]),
            repair="remove it",
        )


def _norm_biases(model: nn.Module) -> set[str]:
    return {f"{name}.bias" for name, module in model.named_modules() if isinstance(module, _NORMS)}


def _hidden_matrices(
    model: nn.Module, trainable: Mapping[str, Tensor], layers: Sequence[str]
) -> dict[str, Tensor]:
    """Matrices of layers between the first and the last, embeddings left out (Jordan et al. 2024)."""
    ends = {layers[0], layers[-1]}
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name: value
        for name, value in trainable.items()
        if value.ndim == 2 and id(value) not in tables and _layer_of(name, layers) not in ends
    }
