"""The group of ranks, the device of each, and the model wrapped for the recipe's strategy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

_TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """This process's place among the ranks."""

    rank: int
    world: int
    device: torch.device


@contextmanager
def join_mesh(*, device: str, threads: int) -> Iterator[Mesh]:
    """Join the ranks that the launcher started: NCCL with a GPU each, else gloo.

    Args:
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads of this rank.

    Raises:
        RuntimeError: `cuda` was asked for and there are fewer GPUs than ranks on this host.
    """
    torch.set_num_threads(threads)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
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
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    try:
        yield Mesh(rank=rank, world=world, device=place)
    finally:
        dist.destroy_process_group()


def wrap_model(model: nn.Module, *, strategy: str, mesh: Mesh) -> nn.Module:
    """`model` on its device, with gradients averaged over ranks where the strategy says so."""
    model = model.to(mesh.device)
    if strategy == "single":
        return model
    from torch.nn.parallel import DistributedDataParallel

    devices = [mesh.device.index] if mesh.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices)


def sum_over_ranks(values: list[float], mesh: Mesh) -> list[float]:
    """The element-wise sum of `values` over all ranks, the same on each."""
    total = torch.tensor(values, dtype=torch.float64, device=mesh.device)
    dist.all_reduce(total)
    return [float(value) for value in total.tolist()]
