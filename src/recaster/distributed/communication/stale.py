"""Asynchronous parameter servers with bounded staleness (stale synchronous parallel, Ho et al. 2013).

worker  gradient shares ──▶ server of each share: its own optimizer steps at once
        weight shares  ◀── as soon as no rank is more than `staleness` steps behind this one

Each rank is a worker, and threads of it, one for each other worker, are the server of its share. Messages
are gloo's point-to-point sends; docs/adr/0011-communication.md says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recaster.core.errors import TrainingError
from recaster.distributed.communication.exchange import GradientScheme
from recaster.distributed.communication.packed import pack, unpack
from recaster.distributed.communication.server import Share, divide
from recaster.distributed.communication.stale_server import ANSWER, FAREWELL, PUSH, Server

_IDLE = timedelta(days=365)
"""A server waits as long as its worker validates or saves; a worker's own wait is bounded."""
_ANSWER_WITHIN = timedelta(seconds=60)


class StaleServer(GradientScheme):
    """Weights live in the servers; a rank sends the gradient of its own rows and takes the newest weights.

    A rank goes on when every other is at most `staleness` steps behind. Each of n ranks' updates has the
    n-th part of the learning rate, so that a round of all ranks moves as far as one plain step.
    """

    averages_gradients = False
    one_bucket = False

    def __init__(self, group: dist.ProcessGroup, *, placement: str, staleness: int, last_step: int) -> None:
        super().__init__(group)
        self._placement, self._staleness, self._last = placement, staleness, last_step
        # Its own group: a server's receives must not time out, nor mix with the ranks' collectives.
        self._wire = dist.new_group(dist.get_process_group_ranks(group), backend="gloo", timeout=_IDLE)
        self._server: Server | None = None
        self._weights: list[nn.Parameter] = []
        self._pending: dict[str, Tensor] = {}
        self.lag: list[int] = []
        """After `close`: how many steps the slowest rank was behind at each answer of this rank's server."""

    def update(self, optimizers: Sequence[torch.optim.Optimizer], *, step: int) -> None:
        """Push the gradient, pull the weights; after the last step all ranks have the same."""
        server = self._server or self._start(optimizers, step=step)
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        header = torch.tensor([float(step), *[float(group["lr"]) for group in groups]])
        gradient = pack([_gradient(weight) for weight in self._weights]).cpu()
        pulled = torch.empty_like(gradient)
        answers = [
            (rank, dist.irecv(pulled[slice(*share)], group=self._wire, group_src=rank, tag=ANSWER))
            for rank, share in self._remote(server)
        ]
        sends = [
            dist.isend(
                torch.cat([header, gradient[slice(*share)]]), group=self._wire, group_dst=rank, tag=PUSH
            )
            for rank, share in self._remote(server)
        ]
        own = slice(*server.shares[server.place])
        if gradient[own].numel():
            pulled[own] = server.serve(server.place, torch.cat([header, gradient[own]]))
        for work in sends:
            work.wait()
        for rank, work in answers:
            _await(work, rank=rank, step=step)
        unpack(pulled.to(self._weights[0].device), self._weights)
        if step == self._last:
            self.close()

    def close(self) -> None:
        """Wait until every rank's updates are in, give all ranks the same weights, end the servers."""
        server, self._server = self._server, None
        if server is None:
            return
        dist.barrier(group=self.group)
        final = torch.empty(server.shares[-1][1])
        for rank, share in enumerate(server.shares):
            part = final[slice(*share)]
            if rank == server.place:
                part.copy_(server.weights())
            if part.numel():
                dist.broadcast(part, group=self._wire, group_src=rank)
        unpack(final.to(self._device), self._weights)
        for rank, share in self._remote(server):
            farewell = torch.full([server.header + share[1] - share[0]], FAREWELL)
            dist.send(farewell, group=self._wire, group_dst=rank, tag=PUSH)
        server.join()
        self.lag = server.lag

    def memory(self) -> dict[str, Tensor]:
        """This rank's weights, and its server's weights and moments."""
        if self._server is None:
            return self._pending
        dist.barrier(group=self.group)  # no rank's update is on its way
        return {"stale.weights": pack(self._parameters), **self._server.memory()}

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """See `Communication.load_memory`."""
        if memory:
            unpack(memory["stale.weights"].to(self._device), self._parameters)
        self._pending = memory  # the servers are made when the optimizers are first seen

    def _start(self, optimizers: Sequence[torch.optim.Optimizer], *, step: int) -> Server:
        self._weights = [
            weight
            for optimizer in optimizers
            for group in optimizer.param_groups
            for weight in group["params"]
        ]
        elements = sum(weight.numel() for weight in self._weights)
        self._server = Server(
            optimizers,
            self._wire,
            shares=divide(elements, self._wire.size(), placement=self._placement),
            staleness=self._staleness,
            clock=step - 1,
        )
        if self._pending:
            self._server.load_memory(self._pending)
            self._pending = {}
        self._server.start()
        return self._server

    def _remote(self, server: Server) -> list[tuple[int, Share]]:
        return [
            (rank, share)
            for rank, share in enumerate(server.shares)
            if rank != server.place and share[1] > share[0]
        ]

    @property
    def _device(self) -> torch.device:
        return self._parameters[0].device


def _gradient(weight: nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _await(work: Any, *, rank: int, step: int) -> None:
    try:
        work.wait(_ANSWER_WITHIN)
    except RuntimeError as error:
        raise TrainingError(
            "A parameter server does not answer.",
            where=f"step {step}, the server of rank {rank}",
            value=str(error),
            repair="look at that rank's log; a rank that is much slower than the others needs a larger "
            "communication.parameter_server.staleness",
        ) from error
