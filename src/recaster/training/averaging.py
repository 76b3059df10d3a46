"""An exponential moving average of the weights (Polyak and Juditsky 1992), of this rank's share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from recaster.distributed.gradients import group_by_layout
from recaster.training.turns import averaged_parameters


class WeightAverage:
    """Follows a module's trained parameters (see `averaged_parameters`), in tensors of the same layout."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        followed = averaged_parameters(module)
        self._followed = list(followed.values())
        self.tensors: dict[str, Tensor] = {name: value.detach().clone() for name, value in followed.items()}
        averages = {
            id(value): average for value, average in zip(self._followed, self.tensors.values(), strict=True)
        }
        self._groups = [
            ([averages[id(value)] for value in group], [value.detach() for value in group])
            for group in group_by_layout(self._followed)
        ]

    @torch.no_grad()
    def follow(self) -> None:
        """Move each average a step towards the present weights."""
        for averages, values in self._groups:
            torch._foreach_lerp_(averages, values, 1 - self._decay)  # as torch.optim.swa_utils does

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the module for the body."""
        kept = [value.detach().clone() for value in self._followed]
        self._fill(list(self.tensors.values()))
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._followed, values, strict=True):
            parameter.copy_(value)
