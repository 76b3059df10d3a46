"""How fast the ranks' link is, and how long a piece of work takes on the slowest of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

_LONG_ENOUGH_SECONDS = 0.1
_FIRST_BYTES = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a ring of the ranks can carry."""

    ranks: int
    latency_seconds: float
    """Of the smallest all-reduce."""
    bytes_per_second: float
    """Of each rank, in each direction."""

    def all_reduce_seconds(self, size: float) -> float:
        """Time to all-reduce `size` bytes: each rank sends 2 (n - 1) / n of them."""
        return self.latency_seconds + 2 * (self.ranks - 1) / self.ranks * size / self.bytes_per_second

    def all_gather_seconds(self, size: float) -> float:
        """Time until every rank has the `size` bytes of every other."""
        return self.latency_seconds + (self.ranks - 1) * size / self.bytes_per_second


def measure_link(group: dist.ProcessGroup, *, device: torch.device, largest_bytes: int) -> Link:
    """Time all-reduces of a few bytes, then of ever more until one is long, or of `largest_bytes`."""
    latency = _time_all_reduce(4, group, device, repeats=5)
    size = min(_FIRST_BYTES, largest_bytes)
    seconds = _time_all_reduce(size, group, device)
    while seconds < _LONG_ENOUGH_SECONDS and size < largest_bytes:
        size = min(4 * size, largest_bytes)
        seconds = _time_all_reduce(size, group, device)
    ranks = group.size()
    carried = 2 * (ranks - 1) / ranks * size
    return Link(
        ranks=ranks,
        latency_seconds=latency,
        bytes_per_second=carried / max(seconds - latency, seconds / 10),
    )


def _time_all_reduce(size: int, group: dist.ProcessGroup, device: torch.device, *, repeats: int = 2) -> float:
    payload = torch.zeros(max(1, size // 4), device=device)
    return slowest_seconds(
        lambda: dist.all_reduce(payload, group=group), group=group, device=device, repeats=repeats
    )


def slowest_seconds(
    work: Callable[[], object], *, group: dist.ProcessGroup, device: torch.device, repeats: int = 2
) -> float:
    """The median time of `work` after a first try, on the slowest rank; the same on all."""
    times = []
    for _ in range(repeats + 1):
        dist.barrier(group=group)
        started = now(device)
        work()
        times.append(now(device) - started)
    return largest_over_ranks(statistics.median(times[1:]), group=group, device=device)


def largest_over_ranks(value: float, *, group: dist.ProcessGroup, device: torch.device) -> float:
    """The largest rank's `value`, on all."""
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=group)
    return float(shared)


def now(device: torch.device) -> float:
    """A clock, seconds, read when `device` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
