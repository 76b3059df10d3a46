"""The norm of the whole gradient, wherever its parts are, and clipping by it.

Parameters of one rank can be plain tensors and DTensors over different meshes; torch's functions
take one kind at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from recaster.distributed.mesh import PIPE, Mesh


def group_by_layout(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters that one fused or foreach call can take together: of one mesh, or of none."""
    groups: dict[Any, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
    return list(groups.values())


def clip_gradients(module: nn.Module, max_norm: float, mesh: Mesh) -> float:
    """Scale the gradient of all ranks' parameters together to a norm of at most `max_norm`.

    Returns:
        The norm before, the same on every rank; when it is not finite, gradients are left useless.
    """
    groups = group_by_layout(value for value in module.parameters() if value.grad is not None)
    gradients = [[value.grad for value in group if value.grad is not None] for group in groups]
    norms = [_whole(get_total_norm(group)) for group in gradients]
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if mesh.size(PIPE) > 1:  # each stage's parameters are on its own ranks
        total = total.square()
        dist.all_reduce(total, group=mesh.group(PIPE))
        total = total.sqrt()
    for group in groups:
        clip_grads_with_norm_(group, max_norm, total)
    return float(total)


def _whole(norm: Tensor) -> Tensor:
    """The norm over all ranks of a DTensor's mesh."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
