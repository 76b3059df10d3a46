"""What the loop needs of a strategy, and nothing more: the loop is the same for one CPU and for a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from recaster.distributed.communication.protocol import Communication
from recaster.models.losses import LossSum


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """The rows of one forward and backward pass on one rank."""

    inputs: Tensor
    """`(rows, …)`"""
    targets: Tensor
    """`(rows, …)`"""
    counted: int
    """The first `counted` rows are real; those after them only fill up the shape and weigh nothing."""
    weight: int
    """Targets that count in them: as many as rows, or for instance the learned tokens of texts."""


@runtime_checkable
class Chained(Protocol):
    """A model that a pipeline can cut."""

    def chain(self) -> list[str]:
        """The modules whose application one after the other is the model's `forward`."""


@runtime_checkable
class Layered(Protocol):
    """A model with a sequence of layers that no pipeline can cut."""

    def layers(self) -> list[str]:
        """The modules that count as layers, from the input on."""


def list_links(model: nn.Module) -> list[str]:
    """The names of the model's layers, from the input on; of a model that names none, its children's."""
    if isinstance(model, Chained):
        return model.chain()
    if isinstance(model, Layered):
        return model.layers()
    return [name for name, _ in model.named_children()]


@runtime_checkable
class Alternating(Protocol):
    """A model of parts that steps train in turn, each by optimizers of its own: the two players of a GAN."""

    def turns(self) -> list[str]:
        """The parts, names of child modules, in the order in which steps train them, over and over."""

    def begin_turn(self, part: str) -> None:
        """Answer in training as `part`'s objective wants it, with gradients for no other part."""

    def product(self) -> str:
        """The part that comes out: a moving average follows it alone, in its own turns."""


@runtime_checkable
class LayerShared(Protocol):
    """A model whose layers can be shared by ranks."""

    def tensor_plan(self, ranks: int) -> dict[str, object]:
        """torch's parallel style for each pattern of module names.

        Raises:
            ValueError: not for so many ranks.
        """


class Strategy(Protocol):
    """A model as the ranks of a mesh hold and run it."""

    @property
    def module(self) -> nn.Module:
        """This rank's share: its parameters have the names they have in the whole model."""

    @property
    def communication(self) -> Communication:
        """How copies of the model agree."""

    @property
    def rows_per_pass(self) -> int | None:
        """How many rows each micro-batch must have; None when any number will do."""

    @property
    def passes(self) -> int | None:
        """How many micro-batches each call must get; None when any number will do."""

    def accumulate(
        self, micro_batches: Sequence[MicroBatch], loss_sum: LossSum, *, scale: float | Tensor
    ) -> Tensor:
        """Set the gradients to those of `scale` times the loss sum, averaged over the data ranks.

        Each rank of the mesh must call it with as many micro-batches.

        Returns:
            The unscaled loss sum of this rank's rows, nats, shape `()`, where this rank has the logits
            (`Mesh.speaks`), else something of that shape to ignore.
        """

    def predict(self, micro_batches: Sequence[MicroBatch]) -> list[Tensor]:
        """The logits of each micro-batch, none on a rank that has none; gradients are off."""
