"""The ranks as a grid with named dimensions, and this process's place in it.

ranks 0 1 2 3, mesh {data: 2, tensor: 2}      tensor 0   tensor 1
                                     data 0   rank 0     rank 1     same rows, half the weights each
                                     data 1   rank 2     rank 3     other rows
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

DATA, SHARD, PIPE, TENSOR = "data", "shard", "pipe", "tensor"
DIMENSIONS = (DATA, SHARD, PIPE, TENSOR)
"""From the outermost, which talks least and may span hosts, to the innermost, which talks in every layer."""
GROUP_TIMEOUT = timedelta(seconds=60)
"""How long a collective waits for a rank that does not come, where nobody says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """This process's place among the ranks."""

    rank: int
    world: int
    device: torch.device
    grid: DeviceMesh
    """torch's mesh; it has the dimensions of the recipe that are larger than 1 (see `build_mesh`)."""
    timeout: timedelta = GROUP_TIMEOUT
    """How long a collective waits for a rank that does not come."""

    def size(self, *dimensions: str) -> int:
        """How many places the `dimensions` have together; one that the grid lacks has one."""
        names = self.grid.mesh_dim_names
        return math.prod(self.grid.size(names.index(name)) for name in dimensions if name in names)

    def place(self, dimension: str) -> int:
        """This rank's coordinate along `dimension`, from 0."""
        names = self.grid.mesh_dim_names
        return int(self.grid.get_local_rank(dimension)) if dimension in names else 0

    def group(self, dimension: str) -> dist.ProcessGroup:
        """The ranks that differ from this one in `dimension` only."""
        return self.grid.get_group(dimension)

    @property
    def data_ranks(self) -> int:
        """Into how many parts a global batch is split: only copies and shards see different rows."""
        return self.size(DATA, SHARD)

    @property
    def data_rank(self) -> int:
        """Which of these parts this rank takes."""
        return self.place(DATA) * self.size(SHARD) + self.place(SHARD)

    @property
    def random_stream(self) -> int:
        """The number of this rank's random stream.

        Ranks that hold pieces of one layer must draw the same dropout mask; other rows and
        other layers must not.
        """
        return self.place(PIPE) * self.data_ranks + self.data_rank

    @property
    def speaks(self) -> bool:
        """Whether this rank reports for its rows: one rank does among those that share them."""
        return self.place(PIPE) == self.size(PIPE) - 1 and self.place(TENSOR) == 0


@contextmanager
def join_mesh(
    *, device: str, threads: int, shape: Mapping[str, int], timeout: timedelta = GROUP_TIMEOUT
) -> Iterator[Mesh]:
    """Join the ranks that the launcher started: NCCL with a GPU each, else gloo.

    Args:
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads of this rank.
        shape: ranks along each dimension; their product is the number of ranks.
        timeout: how long a collective waits for a rank that does not come.

    Raises:
        RuntimeError: `cuda` was asked for and there are fewer GPUs than ranks on this host.
    """
    torch.set_num_threads(threads)
    local_rank, local_world = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if device == "cuda" and gpus < local_world:
        raise RuntimeError(f"distributed.device is cuda: {local_world} ranks want a GPU each, {gpus} found")
    on_gpu = gpus >= local_world
    place = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    try:
        yield build_mesh(shape, device=place, timeout=timeout)
    finally:
        dist.destroy_process_group()


def build_mesh(shape: Mapping[str, int], *, device: torch.device, timeout: timedelta = GROUP_TIMEOUT) -> Mesh:
    """Arrange the ranks of the default process group in a grid of `shape`.

    Raises:
        ValueError: `shape` has another number of ranks than the process group.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    if math.prod(shape.values()) != world:
        raise ValueError(f"a mesh of {dict(shape)} does not fit {world} ranks")
    # A dimension of one place needs no process group, except that `fully_shard` replicates only
    # over a pair (copies, shards).
    names = [
        name
        for name in DIMENSIONS
        if shape.get(name, 1) > 1 or (name == SHARD and SHARD in shape and shape.get(DATA, 1) > 1)
    ] or [DATA]
    grid = init_device_mesh(device.type, [shape.get(name, 1) for name in names], mesh_dim_names=names)
    for name in names:
        # Groups made by a mesh wait 30 minutes for a hung rank, whatever the default group does.
        _set_timeout(grid.get_group(name), timeout)
    return Mesh(rank=rank, world=world, device=device, grid=grid, timeout=timeout)


def _set_timeout(group: Any, timeout: timedelta) -> None:
    from torch.distributed.distributed_c10d import _set_pg_timeout  # torch has no public one

    _set_pg_timeout(timeout, group)


def sum_over_ranks(values: list[float], mesh: Mesh) -> list[float]:
    """The element-wise sum of `values` over all ranks, the same on each."""
    if mesh.world == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=mesh.device)
    dist.all_reduce(total)
    return [float(value) for value in total.tolist()]
