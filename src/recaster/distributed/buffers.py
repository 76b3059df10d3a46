"""What a model keeps beside its weights, such as running means of batch normalisation: one copy for all."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from recaster.distributed.mesh import DATA, SHARD, Mesh


@torch.no_grad()
def share_buffers(module: nn.Module, mesh: Mesh) -> None:
    """Give the ranks with the same layers the first one's buffers; all of them call it.

    Each rank's come from its own rows. Without one copy, what a checkpoint holds would be any rank's, and
    each would validate with its own. The first rank's go on as if nothing had happened, so that a run that is
    resumed from here has the buffers of one that was not.
    """
    buffers = list(module.buffers())
    if mesh.data_ranks == 1 or not buffers:
        return
    # One message: float64 holds every value of the others, counts of batches included.
    flat = torch.cat([buffer.flatten().double() for buffer in buffers])
    for dimension in (SHARD, DATA):
        if mesh.size(dimension) > 1:
            group = mesh.group(dimension)
            dist.broadcast(flat, src=dist.get_global_rank(group, 0), group=group)
    start = 0
    for buffer in buffers:
        end = start + buffer.numel()
        buffer.copy_(flat[start:end].view_as(buffer))
        start = end
