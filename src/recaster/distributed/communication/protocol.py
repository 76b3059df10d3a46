"""What the loop needs of a communication scheme, and nothing more.

accumulate (backward; the scheme reduces gradients in it, or leaves them) → clip → update → next step
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Communication(Protocol):
    """How the data ranks that hold copies of a model come to agree."""

    @property
    def averages_gradients(self) -> bool:
        """Whether backward gives all ranks the same gradients.

        Else nothing is sent in it, and each keeps those of its own rows, sparse ones too.
        """

    @property
    def one_bucket(self) -> bool:
        """Whether it must see all gradients of a step together."""

    def attach(self, replica: Any) -> None:
        """Take over what `replica`, a DistributedDataParallel, sends; called once, before the first step."""

    def update(self, optimizers: Sequence[torch.optim.Optimizer], *, step: int) -> None:
        """Carry out step `step` (from 1) with the gradients at hand, and what exchange is due after it."""

    def memory(self) -> dict[str, Tensor]:
        """What this rank must keep to go on exactly: error feedback, low-rank factors, outer momentum.

        All ranks call it after the same step.
        """

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """Go on from what `memory` returned when the checkpoint was made; `{}` when there is none.

        Called after `attach` and after the checkpoint's weights were loaded.
        """

    def close(self) -> None:
        """Give all ranks the same weights, and end what runs beside the loop.

        All ranks call it after their last step, before the last checkpoint, also when they stop early.
        """


class AllReduce:
    """The plain scheme: DistributedDataParallel's own ring all-reduce in float32."""

    averages_gradients = True
    one_bucket = False

    def attach(self, replica: Any) -> None:
        """Leave the reduction to DistributedDataParallel."""

    def update(self, optimizers: Sequence[torch.optim.Optimizer], *, step: int) -> None:  # noqa: ARG002
        """One step of each optimizer."""
        for optimizer in optimizers:
            optimizer.step()

    def memory(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
