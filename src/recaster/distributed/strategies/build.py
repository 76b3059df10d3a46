"""The recipe's `distributed` section, as one strategy object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from recaster.distributed.mesh import DATA, SHARD, TENSOR, Mesh
from recaster.distributed.strategies.pipeline import PipelineStrategy
from recaster.distributed.strategies.protocol import Strategy
from recaster.distributed.strategies.whole import WholeStrategy


def mesh_shape(section: Mapping[str, Any]) -> dict[str, int]:
    """The dimensions of the recipe's mesh that this strategy needs process groups for."""
    shape = {name: size for name, size in section["mesh"].items() if size > 1}
    if DATA in shape and not _copies_by_ddp(section):
        shape.setdefault(SHARD, 1)  # `fully_shard` replicates only over a pair (copies, shards)
    return shape or {DATA: 1}


def _copies_by_ddp(section: Mapping[str, Any]) -> bool:
    """Whether DistributedDataParallel averages the gradients of data ranks; else `fully_shard` does.

    DDP takes no shared parameters, and as a stage of the interleaved schedule it fails in torch 2.13
    ("rebuilt parameter indices size is not same as original model parameters size").
    """
    if section["strategy"] != "pipeline":
        return bool(section["strategy"] == "ddp")
    mesh = section["mesh"]
    return bool(section["stages_per_rank"] == 1 and mesh[SHARD] == mesh[TENSOR] == 1)


def count_passes(batch_size: int, *, data_ranks: int, micro_batch_size: int | None) -> int:
    """Micro-batches of each rank in one step over `batch_size` rows, the same on all ranks."""
    rows = math.ceil(batch_size / data_ranks)
    return 1 if micro_batch_size is None else math.ceil(rows / micro_batch_size)


def build_strategy(
    model: nn.Module,
    section: Mapping[str, Any],
    *,
    mesh: Mesh,
    precision: str,
    batch_size: int,
    micro_batch_size: int | None,
) -> Strategy:
    """Share `model` out over `mesh` as the recipe's `distributed` section says.

    Every rank must pass the same weights. `model` is taken over: use `Strategy.module` from here on.

    Args:
        precision: `float32` or `bf16`.
        batch_size: rows of a step over all ranks.
        micro_batch_size: rows of one pass on one rank; None for all of a step.

    Raises:
        RecipeError: the model cannot be shared in this way.
    """
    copies = _copies_by_ddp(section)
    if section["strategy"] == "pipeline":
        return PipelineStrategy(
            model,
            mesh=mesh,
            precision=precision,
            bucket_mib=section["bucket_mib"],
            copies=copies,
            stages_per_rank=section["stages_per_rank"],
            passes=count_passes(batch_size, data_ranks=mesh.data_ranks, micro_batch_size=micro_batch_size),
            rows_per_pass=micro_batch_size or math.ceil(batch_size / mesh.data_ranks),
        )
    return WholeStrategy(
        model, mesh=mesh, precision=precision, bucket_mib=section["bucket_mib"], copies=copies
    )
