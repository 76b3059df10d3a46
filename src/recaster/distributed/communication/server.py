"""Synchronous parameter servers: gradients go to the server of their share, their mean comes back.

4 ranks, sharded        every rank serves a quarter: sends 3 quarters, gets 3, answers 3, gets 3
4 ranks, central        rank 0 serves all: its link carries 3 whole gradients in and 3 out

Sharded, no link carries more than in a ring all-reduce. gloo's own reduce-scatter does: it moves what an
all-reduce moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor

from recaster.distributed.communication.exchange import Gradients, GradientScheme, done

Share = tuple[int, int]
"""The first element that a server holds, and the first beyond."""


def divide(elements: int, ranks: int, *, placement: str) -> list[Share]:
    """The share of each rank's server: as equal as can be for `sharded`, all for rank 0 for `central`."""
    if placement == "central":
        return [(0, elements), *[(elements, elements)] * (ranks - 1)]
    cuts = [elements * number // ranks for number in range(ranks + 1)]
    return list(pairwise(cuts))


class SynchronousServer(GradientScheme):
    """Servers average gradients; ranks wait for them, so that a step is that of plain all-reduce."""

    def __init__(self, group: dist.ProcessGroup, *, placement: str) -> None:
        super().__init__(group)
        self._placement = placement

    def exchange(self, gradients: Gradients) -> torch.futures.Future[Tensor]:
        """See `Exchange`."""
        flat, ranks, own = gradients.flat, self.group.size(), self.group.rank()
        shares = divide(flat.numel(), ranks, placement=self._placement)
        others = [rank for rank in range(ranks) if rank != own]
        mine = flat[slice(*shares[own])]
        pushed = {rank: torch.empty_like(mine) for rank in others}
        self._move(sends=[(rank, flat[slice(*shares[rank])]) for rank in others], receives=pushed)
        total = torch.zeros_like(mine)
        for rank in range(ranks):
            total += pushed.get(rank, mine)
        mine.copy_(total.div_(ranks))
        self._move(
            sends=[(rank, mine) for rank in others],
            receives={rank: flat[slice(*shares[rank])] for rank in others},
        )
        return done(flat)

    def _move(self, *, sends: Sequence[tuple[int, Tensor]], receives: dict[int, Tensor]) -> None:
        # Receives first: a send whose receiver is not ready yet is carried on by gloo's own thread, which
        # then does not receive, so that both directions of a link go one after the other.
        operations = [
            dist.P2POp(dist.irecv, part, group=self.group, group_peer=rank)
            for rank, part in receives.items()
            if part.numel()
        ]
        operations += [
            dist.P2POp(dist.isend, part, group=self.group, group_peer=rank)
            for rank, part in sends
            if part.numel()
        ]
        if operations:
            for work in dist.batch_isend_irecv(operations):
                work.wait()
