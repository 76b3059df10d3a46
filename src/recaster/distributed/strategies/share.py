"""How parameters are shared out, by torch's own engines: DDP, `fully_shard`, `parallelize_module`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from recaster.core.errors import RecipeError
from recaster.distributed.mesh import DATA, SHARD, TENSOR, Mesh
from recaster.distributed.strategies.protocol import (
    Alternating,
    Chained,
    Layered,
    LayerShared,
    list_links,
)

SHORT_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions that compute in 16 bits."""


def share_copies(model: nn.Module, *, mesh: Mesh, bucket_mib: int | None, alike: bool = False) -> nn.Module:
    """`model` in DistributedDataParallel over the mesh's `data` ranks.

    Args:
        bucket_mib: gradients are reduced in buckets of this size, while backward goes on; None: all at once.
        alike: the ranks' weights are known to be the same, so that the first rank's are not sent to all.
    """
    from torch.nn.parallel import DistributedDataParallel

    devices = [mesh.device.index] if mesh.device.type == "cuda" else None
    return DistributedDataParallel(
        model,
        device_ids=devices,
        process_group=mesh.group(DATA),
        bucket_cap_mb=_in_one_bucket(model) if bucket_mib is None else bucket_mib,
        init_sync=not alike,
        gradient_as_bucket_view=True,
        # Only one part of an alternating model has gradients in a step; the others' are not waited for.
        find_unused_parameters=isinstance(model, Alternating),
    )


def _in_one_bucket(model: nn.Module) -> int:
    """A bucket size, MiB, that all gradients fit into."""
    return sum(value.nbytes for value in model.parameters()) // 2**20 + 2


def share_parameters(model: nn.Module, *, mesh: Mesh, precision: str, copies: bool) -> bool:
    """Replace `model`'s parameters in place by this rank's parts, as the mesh has it.

    Args:
        copies: data ranks are left to DistributedDataParallel.

    Returns:
        Whether `fully_shard` now reduces the gradients.

    Raises:
        RecipeError: the model has no plan for tensor parallelism, or none for so many ranks.
    """
    if mesh.size(TENSOR) > 1:
        _share_layers(model, mesh)
    if copies or mesh.data_ranks == 1:
        return False
    _shard(model, mesh, precision)
    return True


def _share_layers(model: nn.Module, mesh: Mesh) -> None:
    from torch.distributed.tensor.parallel import parallelize_module

    if not isinstance(model, LayerShared):
        raise RecipeError(
            "This model has no plan for sharing its layers.",
            where="distributed.strategy",
            value=f"{type(model).__name__} with {mesh.size(TENSOR)} tensor ranks",
            repair="use strategy ddp, fsdp or pipeline, or give the model a `tensor_plan`",
        )
    try:
        plan = model.tensor_plan(mesh.size(TENSOR))
    except ValueError as error:
        raise RecipeError(
            "The model's layers cannot be shared by so many ranks.",
            where="distributed.mesh.tensor",
            value=str(error),
            repair="choose a number of tensor ranks that divides the model's heads",
        ) from None
    parallelize_module(model.to(mesh.device), mesh.grid[TENSOR], plan)


def _shard(model: nn.Module, mesh: Mesh, precision: str) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    names = [name for name in (DATA, SHARD) if name in mesh.grid.mesh_dim_names]
    grid = mesh.grid[tuple(names)]
    # Half the bytes to gather; gradients are summed in float32 all the same.
    policy = (
        MixedPrecisionPolicy(
            param_dtype=SHORT_TYPES[precision], reduce_dtype=torch.float32, output_dtype=torch.float32
        )
        if precision in SHORT_TYPES
        else MixedPrecisionPolicy()
    )
    model.to(mesh.device)
    for block in list_blocks(model):
        fully_shard(block, mesh=grid, mp_policy=policy)
    fully_shard(model, mesh=grid, mp_policy=policy)


def list_blocks(model: nn.Module) -> list[nn.Module]:
    """The parts whose parameters are gathered together: the larger ones of the model's layers."""
    named = list_links(model) if isinstance(model, Chained | Layered) else []
    links = [model.get_submodule(name) for name in named]
    return [
        link for link in links if any(True for _ in link.children()) and any(True for _ in link.parameters())
    ]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Compute in 16 bits what is safe in them, with float32 parameters; nothing for `float32` and `tf32`."""
    kind = SHORT_TYPES.get(precision)
    return torch.autocast(device.type, kind) if kind else nullcontext()
