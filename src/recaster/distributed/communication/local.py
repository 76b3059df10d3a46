"""Ranks that train on their own and meet only every few steps: local SGD and DiLoCo.

step            1   2   3   4 | 5   6   7   8 | 9 …        every 4 steps
rank 0   w ───▶ a ─▶ ─▶ ─▶ ─▶ mean ─▶ ─▶ ─▶ ─▶ mean
rank 1   w ───▶ b ─▶ ─▶ ─▶ ─▶ mean ─▶ ─▶ ─▶ ─▶ mean
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recaster.distributed.communication.exchange import Gradients, GradientScheme
from recaster.distributed.communication.packed import load_moments, moments, pack, unpack


class LocalSgd(GradientScheme):
    """Weights, not gradients, are averaged, once in `every_steps` steps (Stich 2019).

    Each rank keeps its own optimizer moments. The first `warmup_steps` steps are plain ones. After the last
    step all ranks agree, whether it is due or not.
    """

    one_bucket = False

    def __init__(
        self, group: dist.ProcessGroup, *, every_steps: int, warmup_steps: int, last_step: int
    ) -> None:
        super().__init__(group)
        self._every, self._warmup, self._last = every_steps, warmup_steps, last_step
        self._next, self._apart = 1, False
        self.meeting_seconds = 0.0
        """What the last update spent on agreeing."""
        self._pending: dict[str, Tensor] = {}

    @property
    def averages_gradients(self) -> bool:  # type: ignore[override]
        """During the plain steps at the start."""
        return self._next <= self._warmup

    def exchange(self, gradients: Gradients) -> torch.futures.Future[Tensor]:
        """The mean, in the plain steps at the start; later ones exchange nothing."""
        assert self.averages_gradients, "gradients are sent in a step that ranks take on their own"  # noqa: S101
        flat = gradients.flat
        flat.div_(self.group.size())
        work = dist.all_reduce(flat, group=self.group, async_op=True)
        result: torch.futures.Future[Tensor] = work.get_future().then(lambda sent: sent.value()[0])
        return result

    def update(self, optimizers: Sequence[torch.optim.Optimizer], *, step: int) -> None:
        """See `Communication.update`."""
        if self._pending:
            load_moments(optimizers, self._pending)
            self._pending = {}
        self._optimizers = optimizers
        plain = step <= self._warmup
        if not plain:
            self.depart()
        super().update(optimizers, step=step)
        self._next, self._apart, self.meeting_seconds = step + 1, not plain, 0.0
        if not plain and ((step - self._warmup) % self._every == 0 or step == self._last):
            self.close()

    def close(self) -> None:
        """Let the ranks agree, unless they do."""
        if self._apart:
            started = time.perf_counter()
            self.meet()
            self._apart, self.meeting_seconds = False, time.perf_counter() - started

    def depart(self) -> None:
        """Before a step that ranks take on their own."""

    def meet(self) -> None:
        """Give all ranks the same weights."""
        mean = pack(self._parameters).div_(self.group.size())
        dist.all_reduce(mean, group=self.group)
        unpack(mean, self._parameters)

    def memory(self) -> dict[str, Tensor]:
        """This rank's own weights and moments: a checkpoint's are those of one rank."""
        memory = {"local.next_step": torch.tensor(self._next)}
        if self.averages_gradients or self._next == 1:
            return memory
        return {**memory, "local.weights": pack(self._parameters), **self._moments()}

    def _moments(self) -> dict[str, Tensor]:
        return self._pending or moments(self._optimizers)

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """See `Communication.load_memory`."""
        if not memory:
            return
        self._next = int(memory["local.next_step"])
        self._apart = "local.weights" in memory
        if "local.weights" in memory:
            unpack(memory["local.weights"].to(self._device), self._parameters)
            # The optimizers are first seen in `update`.
            self._pending = {name: value for name, value in memory.items() if name.startswith("moment.")}

    @property
    def _device(self) -> torch.device:
        return self._parameters[0].device


class DiLoCo(LocalSgd):
    """Local SGD whose mean is a direction for an outer optimizer (Douillard et al. 2023)."""

    def __init__(
        self,
        group: dist.ProcessGroup,
        *,
        every_steps: int,
        warmup_steps: int,
        last_step: int,
        outer_learning_rate: float,
        outer_momentum: float,
    ) -> None:
        super().__init__(group, every_steps=every_steps, warmup_steps=warmup_steps, last_step=last_step)
        self._options = {"rate": outer_learning_rate, "momentum": outer_momentum}
        self._outer: _Outer | None = None

    def depart(self) -> None:
        """The first time, weights are the same on all ranks: they are the anchor."""
        self._outer = self._outer or _Outer(pack(self._parameters), **self._options)

    def meet(self) -> None:
        """One outer step; all ranks go on from its result."""
        outer = self._outer or _Outer(pack(self._parameters), **self._options)
        moved = (outer.weights - pack(self._parameters)).div_(self.group.size())
        dist.all_reduce(moved, group=self.group)
        outer.step(moved)
        unpack(outer.weights, self._parameters)

    def memory(self) -> dict[str, Tensor]:
        """The outer optimizer's beside what local SGD keeps."""
        return {**super().memory(), **(self._outer.memory() if self._outer else {})}

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """See `Communication.load_memory`."""
        super().load_memory(memory)
        if "diloco.anchor" in memory:
            self._outer = _Outer(memory["diloco.anchor"].clone().to(self._device), **self._options)
            self._outer.load_momentum(memory.get("diloco.momentum"))


class _Outer:
    """SGD with Nesterov momentum over the anchor: the weights at the last meeting.

    What ranks moved since then, in the mean, is its gradient.
    """

    def __init__(self, weights: Tensor, *, rate: float, momentum: float) -> None:
        self._anchor = nn.Parameter(weights)
        self._sgd = torch.optim.SGD([self._anchor], lr=rate, momentum=momentum, nesterov=momentum > 0)

    @property
    def weights(self) -> Tensor:
        return self._anchor.detach()

    def step(self, moved: Tensor) -> None:
        self._anchor.grad = moved
        self._sgd.step()
        self._anchor.grad = None

    def memory(self) -> dict[str, Tensor]:
        momentum = self._sgd.state.get(self._anchor, {}).get("momentum_buffer")
        found = {} if momentum is None else {"diloco.momentum": momentum}
        return {"diloco.anchor": self.weights, **found}

    def load_momentum(self, momentum: Tensor | None) -> None:
        if momentum is not None:
            self._sgd.state[self._anchor]["momentum_buffer"] = momentum.clone().to(self._anchor.device)
