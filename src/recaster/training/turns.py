"""Whose step it is in the training of a model whose parts have optimizers of their own.

step (from 0)   0              1          2              3
part            discriminator  generator  discriminator  generator

A function of the step's number: a run that was cut goes on with the right part, without a state to keep.
"""

from __future__ import annotations

from torch import nn

from recaster.distributed.strategies.protocol import Alternating


class Turns:
    """The order of a model's parts."""

    def __init__(self, model: Alternating) -> None:
        self._model, self._order, self._product = model, model.turns(), model.product()

    def begin(self, step: int) -> str:
        """Prepare the model for step `step` (from 0); return the part that it trains."""
        part = self._order[step % len(self._order)]
        self._model.begin_turn(part)
        return part

    def is_averaged(self, part: str) -> bool:
        """Whether a moving average follows a step of `part`."""
        return part == self._product


def find_turns(module: nn.Module) -> Turns | None:
    """The turns of an alternating model; None for one that every step trains whole."""
    return Turns(module) if isinstance(module, Alternating) else None


def averaged_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The trained parameters that a moving average follows, by name: all, or those of the product."""
    prefix = f"{module.product()}." if isinstance(module, Alternating) else ""
    return {
        name: value
        for name, value in module.named_parameters()
        if value.requires_grad and name.startswith(prefix)
    }
