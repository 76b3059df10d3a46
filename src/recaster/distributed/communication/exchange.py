"""Schemes that reduce gradients in backward: where each gradient lies, and the hook that hands them over.

parameters a, b, c of the model        DistributedDataParallel's flat gradient: [ c | a | b ]

DistributedDataParallel rearranges its flat gradient after the first backward of a process, so that what
a scheme remembers of it is kept in the model's order, and a resumed run finds it whatever the order is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recaster.distributed.communication.protocol import AllReduce


class Layout:
    """Where in a flat gradient each parameter of the model is."""

    def __init__(self, model_order: Sequence[Tensor], flat_order: Sequence[Tensor]) -> None:
        places, start = {}, 0
        for parameter in flat_order:
            places[id(parameter)] = (start, start + parameter.numel())
            start += parameter.numel()
        # torch's hooks ask a gradient for its first dimension: a scalar is given one.
        self._places = [
            (*places[id(parameter)], parameter.shape or torch.Size([1])) for parameter in model_order
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self._places == other._places

    __hash__ = None  # type: ignore[assignment]

    def views(self, flat: Tensor) -> list[Tensor]:
        """The parts of `flat` in the shapes and the order of the model's parameters."""
        return [flat[start:end].view(shape) for start, end, shape in self._places]

    def to_model_order(self, flat: Tensor) -> Tensor:
        """A copy of `flat` in the model's order."""
        return torch.cat([flat[start:end] for start, end, _ in self._places])

    def from_model_order(self, ordered: Tensor) -> Tensor:
        """The inverse of `to_model_order`."""
        flat, taken = torch.empty_like(ordered), 0
        for start, end, _ in self._places:
            flat[start:end] = ordered[taken : taken + end - start]
            taken += end - start
        return flat


class Gradients:
    """Gradients of one bucket, to be replaced in place by their mean over the ranks.

    It has the methods that torch's own hooks call on a bucket.
    """

    def __init__(self, flat: Tensor, layout: Layout, *, number: int = 0, last: bool = True) -> None:
        self.flat, self.layout, self._number, self._last = flat, layout, number, last

    def buffer(self) -> Tensor:
        """All of them, flat: shape `(elements,)`."""
        return self.flat

    def gradients(self) -> list[Tensor]:
        """Views of the flat one, in the model's order."""
        return self.layout.views(self.flat)

    def index(self) -> int:
        """Number of the bucket, from 0."""
        return self._number

    def is_last(self) -> bool:
        """Whether it is the step's last bucket."""
        return self._last


class Exchange(Protocol):
    """The part of a scheme that costs time: what the adviser measures."""

    def exchange(self, gradients: Gradients) -> torch.futures.Future[Tensor]:
        """Replace the gradients by their mean over the ranks; the future holds the flat tensor."""


class GradientScheme(AllReduce):
    """A scheme that does its own reduction of gradients, in a hook of DistributedDataParallel."""

    one_bucket = True

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self._parameters: list[nn.Parameter] = []

    def attach(self, replica: Any) -> None:
        """See `Communication.attach`."""
        self._parameters = [value for value in replica.module.parameters() if value.requires_grad]
        # torch reads a hook's annotations, and refuses those that are not its own classes.
        replica.register_comm_hook(None, lambda _, bucket: self._on_bucket(bucket))

    def exchange(self, gradients: Gradients) -> torch.futures.Future[Tensor]:
        """See `Exchange`."""
        raise NotImplementedError

    def _on_bucket(self, bucket: Any) -> torch.futures.Future[Tensor]:
        order = bucket.parameters()
        inside = {id(parameter) for parameter in order}
        layout = Layout([value for value in self._parameters if id(value) in inside], order)
        return self.exchange(Gradients(bucket.buffer(), layout, number=bucket.index(), last=bucket.is_last()))


class Residual:
    """What was not sent in earlier steps, in the present layout of the flat gradient."""

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._flat: Tensor | None = None
        self._ordered: Tensor | None = None

    def arranged(self, gradients: Gradients) -> Tensor:
        """The residual, laid out as `gradients` are; zeros at first."""
        if self._flat is None:
            self._flat = (
                torch.zeros_like(gradients.flat)
                if self._ordered is None
                else gradients.layout.from_model_order(self._ordered.to(gradients.flat.device))
            )
        elif self._layout is not None and self._layout != gradients.layout:
            self._flat = gradients.layout.from_model_order(self._layout.to_model_order(self._flat))
        self._layout, self._ordered = gradients.layout, None
        return self._flat

    def keep(self, flat: Tensor) -> None:
        """Remember `flat` for the next step."""
        self._flat = flat

    def in_model_order(self) -> Tensor | None:
        """For a checkpoint; None before the first step."""
        if self._flat is None or self._layout is None:
            return self._ordered
        return self._layout.to_model_order(self._flat)

    def load(self, ordered: Tensor | None) -> None:
        """Go on from what `in_model_order` returned."""
        self._flat, self._ordered = None, ordered


def done(flat: Tensor) -> torch.futures.Future[Tensor]:
    """A future that already holds `flat`."""
    future: torch.futures.Future[Tensor] = (
        torch.futures.Future(devices=[flat.device]) if flat.is_cuda else torch.futures.Future()
    )
    future.set_result(flat)
    return future
