"""The norm of the whole gradient, wherever its parts are, and scaling it.

Parameters of one rank can be plain tensors and DTensors over different meshes; torch's functions
take one kind at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import get_total_norm

from recaster.distributed.mesh import PIPE, Mesh


def group_by_layout(tensors: Iterable[Tensor]) -> list[list[Any]]:
    """Tensors that one fused or foreach call can take together: of one mesh, or of none."""
    groups: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(getattr(tensor, "device_mesh", None), []).append(tensor)
    return list(groups.values())


def gradient_norm(groups: Sequence[Sequence[Tensor]], mesh: Mesh, *, whole: bool) -> Tensor:
    """The norm of the gradient of all ranks' parameters together, shape `()`, the same on every rank.

    Args:
        groups: this rank's parameters, as `group_by_layout` divides them.
        whole: data ranks have the same gradients; else the norm is that of this rank's own.
    """
    norms = [_whole(get_total_norm(gradients)) for gradients in _gradients(groups)]
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if whole and mesh.size(PIPE) > 1:  # each stage's parameters are on its own ranks
        total = total.square()
        dist.all_reduce(total, group=mesh.group(PIPE))
        total = total.sqrt()
    return total


def scale_gradients(groups: Sequence[Sequence[Tensor]], factor: Tensor) -> None:
    """Multiply the gradients by `factor` `()` in place."""
    for gradients in _gradients(groups):
        # Foreach operations do not mix DTensors with a plain factor.
        torch._foreach_mul_([_local(gradient) for gradient in gradients], factor)


def _gradients(groups: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Those there are, in groups that have any; of sparse ones the rows that are there."""
    found = [[_rows(value) for value in group if value.grad is not None] for group in groups]
    return [gradients for gradients in found if gradients]


def _rows(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None  # noqa: S101 - the caller has looked
    if not gradient.is_sparse:
        return gradient
    if not gradient.is_coalesced():  # rows that are there twice would be counted apart
        parameter.grad = gradient = gradient.coalesce()
    return gradient.values()


def _whole(norm: Tensor) -> Tensor:
    """The norm over all ranks of a DTensor's mesh."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _local(gradient: Tensor) -> Tensor:
    """This rank's part of a gradient; multiplying it multiplies the whole."""
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient
