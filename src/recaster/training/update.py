"""From gradients to new weights: norm, clipping, loss scaling, and never an update that is not finite.

CPU   the norm is looked at before the update.
GPU   fused optimizers are told by a tensor (`found_inf`) to leave the weights alone, and the step is
      looked up only when the host waits anyway; others are looked at before each update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recaster.distributed.communication.protocol import Communication
from recaster.distributed.gradients import gradient_norm, group_by_layout, scale_gradients
from recaster.distributed.mesh import Mesh
from recaster.training.optimizers import set_rates, skips_on_device

_FIRST_SCALE, _GROWTH, _BACKOFF, _GROWTH_STEPS = 2.0**16, 2.0, 0.5, 2000  # those of torch's GradScaler
_SMALLEST_SCALE = 2.0**-6
"""Gradients that overflow fp16 even so are not a matter of scaling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one step updates."""

    optimizers: list[Optimizer]
    groups: list[list[Any]]
    """The parameters, as `group_by_layout` divides them."""


def _divide(module: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str | None, _Part]:
    """By the part that optimizers are for; of a model that every step trains whole, all under None."""
    of: dict[str | None, list[Optimizer]] = {}
    for optimizer in optimizers:
        of.setdefault(optimizer.param_groups[0].get("part"), []).append(optimizer)
    return {
        part: _Part(
            optimizers=own,
            groups=group_by_layout(
                value for value in module.get_submodule(part or "").parameters() if value.requires_grad
            ),
        )
        for part, own in of.items()
    }


class Update:
    """Carries out steps on this rank's share of the weights."""

    def __init__(
        self,
        module: nn.Module,
        optimizers: Sequence[Optimizer],
        communication: Communication,
        mesh: Mesh,
        *,
        precision: str,
        max_gradient_norm: float | None,
    ) -> None:
        self._mesh, self._communication, self._max_norm = mesh, communication, max_gradient_norm
        self._parts = _divide(module, optimizers)
        self._on_device = mesh.device.type == "cuda" and skips_on_device(optimizers)
        device = mesh.device
        self._bad_seen = 0
        self._bad_step = torch.zeros((), dtype=torch.int64, device=device)
        self._scaled = precision == "fp16"
        self.scaler: dict[str, Tensor] = {}
        """Of fp16: by what the loss is multiplied, and how many steps it has held."""
        if self._scaled:
            self.scaler["scale"] = torch.full((), _FIRST_SCALE, device=device)
            self.scaler["held"] = torch.zeros((), dtype=torch.int32, device=device)

    @property
    def loss_scale(self) -> Tensor | None:
        """What the loss must be multiplied by before backward; None when nothing."""
        return self.scaler.get("scale")

    def apply(self, loss: Tensor, *, rate: float, step: int, part: str | None = None) -> Tensor:
        """Take step `step` (from 1) with the gradients at hand, then drop them.

        Args:
            part: of an alternating model: whose step it is; the others' weights stay.

        Returns:
            The norm of the whole gradient before clipping, shape `()`; it is not finite when the
            weights were left as they are.
        """
        own = self._parts[part]
        norm = gradient_norm(own.groups, self._mesh, whole=self._communication.averages_gradients)
        if self._scaled:
            norm = norm / self.scaler["scale"]
        set_rates(own.optimizers, rate, step=step)
        if self._on_device:
            self._apply_on_device(own, loss, norm, step)
        elif math.isfinite(norm):
            self._clip(own, norm)
            self._communication.update(own.optimizers, step=step)
        elif not self._scaled or not math.isfinite(loss):
            self._bad_seen = step
        if self._scaled:
            self._adapt_scale(torch.isfinite(norm), step)
        for optimizer in own.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return norm

    def bad_step(self) -> int:
        """The first step that could not be taken, 0 when there is none; waits for the device."""
        if self._bad_seen or not (self._on_device or self._scaled):
            return self._bad_seen
        return int(self._bad_step)

    def _apply_on_device(self, own: _Part, loss: Tensor, norm: Tensor, step: int) -> None:
        finite = torch.isfinite(norm)
        bad = ~(torch.isfinite(loss) if self._scaled else finite)
        self._bad_step.copy_(torch.where((self._bad_step == 0) & bad, step, self._bad_step))
        self._clip(own, norm)
        # Once a step was bad all later ones are left out too, so that the weights are those before it.
        called_off = (~finite | (self._bad_step > 0)).float()
        for optimizer in own.optimizers:
            optimizer.found_inf = called_off  # type: ignore[attr-defined]
            optimizer.grad_scale = None  # type: ignore[attr-defined]
        self._communication.update(own.optimizers, step=step)

    def _clip(self, own: _Part, norm: Tensor) -> None:
        """Scale the gradients to the largest norm, and back from the loss's scale."""
        if self._max_norm is None and not self._scaled:
            return
        if not (self._on_device or self._scaled or float(norm) > self._max_norm):  # type: ignore[operator]
            return
        largest = math.inf if self._max_norm is None else self._max_norm
        shrink = (largest / (norm + 1e-6)).clamp(max=1.0)
        if self._scaled:
            shrink = shrink / self.scaler["scale"]
        scale_gradients(own.groups, shrink)

    def _adapt_scale(self, finite: Tensor, step: int) -> None:
        torch._amp_update_scale_(
            self.scaler["scale"], self.scaler["held"], (~finite).float(), _GROWTH, _BACKOFF, _GROWTH_STEPS
        )
        small = self.scaler["scale"] < _SMALLEST_SCALE
        self._bad_step.copy_(torch.where((self._bad_step == 0) & small, step, self._bad_step))
