"""One rank's parameter server: a share of the weights, its own optimizer, a thread for each other rank."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.distributed.communication.packed import load_moments, moments, pack, unpack
from recaster.distributed.communication.server import Share

FAREWELL = -1.0
"""The step number of a worker's last message."""
PUSH, ANSWER = 1, 2
"""Tags: two ranks serve each other over one connection."""
_PATIENCE_SECONDS = 60
_ELEMENTWISE = (
    *("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    *("RMSprop", "Adagrad", "Adadelta", "Rprop", "ASGD"),
)
"""Optimizers that treat each weight on its own, so that a share can be updated apart from the rest."""


class Server:
    """Serves `shares[place]` of the weights, which are flat in the optimizers' order.

    A message is `[step, learning rate of each group…, gradient…]`, its answer the share's weights.
    """

    def __init__(
        self,
        optimizers: Sequence[torch.optim.Optimizer],
        wire: dist.ProcessGroup,
        *,
        shares: Sequence[Share],
        staleness: int,
        clock: int,
    ) -> None:
        self.place, self.shares, self.lag = wire.rank(), shares, list[int]()
        self.header = 1 + sum(len(optimizer.param_groups) for optimizer in optimizers)
        self._wire, self._staleness = wire, staleness
        self._clocks = [clock] * wire.size()
        self._changed = threading.Condition()
        self._groups: list[tuple[int, dict[str, Any]]] = []
        self._optimizers = self._split(optimizers, shares[self.place])
        self._pieces = [
            piece
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for piece in group["params"]
        ]
        self._threads = [
            threading.Thread(target=self._listen, args=(rank,), name=f"server-of-{rank}", daemon=True)
            for rank in range(wire.size())
            if rank != self.place and self._pieces
        ]

    def _split(
        self, optimizers: Sequence[torch.optim.Optimizer], share: Share
    ) -> list[torch.optim.Optimizer]:
        """The same optimizers, over the pieces of their weights that lie in `share`."""
        made, start, number = [], 0, 1
        for optimizer in optimizers:
            kind = type(optimizer)
            if kind.__name__ not in _ELEMENTWISE:
                raise RecipeError(
                    "This optimizer cannot update a share of the weights apart from the rest.",
                    where="train.optimizer.name",
                    value=kind.__name__,
                    repair=f"use one of {', '.join(_ELEMENTWISE)}, or remove parameter_server.staleness",
                )
            groups = []
            for group in optimizer.param_groups:
                pieces = []
                for weight in group["params"]:
                    first, end = max(start, share[0]), min(start + weight.numel(), share[1])
                    if first < end:
                        piece = weight.detach().reshape(-1)[first - start : end - start].cpu().clone()
                        pieces.append(nn.Parameter(piece))
                    start += weight.numel()
                if pieces:
                    groups.append((number, {**group, "params": pieces}))
                number += 1
            if groups:
                made.append(kind([group for _, group in groups]))  # type: ignore[call-arg]
                self._groups += [
                    (index, group) for (index, _), group in zip(groups, made[-1].param_groups, strict=True)
                ]
        return made

    def start(self) -> None:
        """Begin to serve."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until every worker has said farewell."""
        for thread in self._threads:
            thread.join()

    def serve(self, worker: int, message: Tensor) -> Tensor:
        """Carry out the update of `worker`, and answer once the slowest is near enough."""
        step = int(message[0])
        with self._changed:
            self._apply(message)
            self._clocks[worker] = step
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._behind(step) <= self._staleness, _PATIENCE_SECONDS):
                raise TimeoutError(f"rank {worker} waited at step {step} for ranks at steps {self._clocks}")
            self.lag.append(self._behind(step))
            return self.weights()

    def weights(self) -> Tensor:
        """The share's weights, flat."""
        return pack(self._pieces) if self._pieces else torch.empty(0)

    def _behind(self, step: int) -> int:
        return max(0, step - min(self._clocks))

    def _apply(self, message: Tensor) -> None:
        for number, group in self._groups:
            group["lr"] = float(message[number]) / self._wire.size()
        taken = self.header
        for piece in self._pieces:
            piece.grad = message[taken : taken + piece.numel()]
            taken += piece.numel()
        for optimizer in self._optimizers:
            optimizer.step()

    def _listen(self, worker: int) -> None:
        first, end = self.shares[self.place]
        while True:
            message = torch.empty(self.header + end - first)
            dist.irecv(message, group=self._wire, group_src=worker, tag=PUSH).wait()
            if message[0] == FAREWELL:
                return
            answer = self.serve(worker, message)
            dist.isend(answer, group=self._wire, group_dst=worker, tag=ANSWER).wait()

    def memory(self) -> dict[str, Tensor]:
        """Weights and moments of the share; no update may be under way."""
        with self._changed:
            return {"server.weights": self.weights(), **moments(self._optimizers)}

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """Put back what `memory` returned."""
        unpack(memory["server.weights"], self._pieces)
        load_moments(self._optimizers, memory)
