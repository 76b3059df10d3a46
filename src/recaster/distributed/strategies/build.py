"""The recipe's `distributed` section, as one strategy object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from recaster.distributed.communication.adviser import Adviser
from recaster.distributed.communication.build import build_scheme
from recaster.distributed.communication.protocol import AllReduce, Communication
from recaster.distributed.mesh import DATA, SHARD, TENSOR, Mesh
from recaster.distributed.strategies.advised import AdvisedStrategy
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


def build_communication(
    section: Mapping[str, Any], *, mesh: Mesh, bucket_mib: int, last_step: int, folder: Path
) -> Communication:
    """How copies agree, as the recipe's `communication` section says; for strategy ddp.

    Every rank must call it.

    Args:
        bucket_mib: see `DistributedSection`.
        last_step: steps of the whole run: after the last one all copies are the same, whatever the scheme.
        folder: of the run; `auto` keeps its choice there.
    """
    if mesh.data_ranks == 1:
        return AllReduce()
    if section["scheme"] == "auto":
        return Adviser(
            section,
            group=mesh.group(DATA),
            device=mesh.device,
            bucket_mib=bucket_mib,
            last_step=last_step,
            folder=folder,
        )
    return build_scheme(section["scheme"], section, group=mesh.group(DATA), last_step=last_step)


def build_strategy(
    model: nn.Module,
    section: Mapping[str, Any],
    *,
    mesh: Mesh,
    precision: str,
    batch_size: int,
    micro_batch_size: int | None,
    communication: Communication | None = None,
) -> Strategy:
    """Share `model` out over `mesh` as the recipe's `distributed` section says.

    Every rank must pass the same weights. `model` is taken over: use `Strategy.module` from here on.

    Args:
        precision: `float32` or `bf16`.
        batch_size: rows of a step over all ranks.
        micro_batch_size: rows of one pass on one rank; None for all of a step.
        communication: how the copies of strategy ddp agree (see `build_communication`); without it, and in
            all other strategies, plainly.

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
    kind = AdvisedStrategy if isinstance(communication, Adviser) else WholeStrategy
    return kind(
        model,
        mesh=mesh,
        precision=precision,
        bucket_mib=section["bucket_mib"],
        copies=copies,
        communication=communication or AllReduce(),
    )
