"""Which kernels and precision this process computes with, and whether the processor is made for them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from recaster.core.errors import RecipeError
from recaster.distributed.mesh import Mesh

EMULATED = (
    "this processor has no instructions for bf16: a step takes many times as long as in float32 "
    "(--set train.precision=float32)"
)


def choose_kernels(*, deterministic: bool) -> None:
    """Those that give the same sums each time, or the quickest."""
    torch.use_deterministic_algorithms(mode=deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic


def choose_precision(precision: str, mesh: Mesh, *, warn: Callable[[str], None]) -> None:
    """Set torch to `precision`; `warn` is told of one that this device only imitates.

    Raises:
        RecipeError: tf32 without a GPU.
    """
    if is_emulated(precision, mesh.device) and mesh.rank == 0:
        warn(EMULATED)
    if precision != "tf32":
        return
    if mesh.device.type != "cuda":
        raise RecipeError(
            "tf32 is a mode of GPUs.",
            where="train.precision",
            value=f"tf32 on {mesh.device.type}",
            repair="use float32 or bf16 here",
        )
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True


def is_emulated(precision: str, device: torch.device) -> bool:
    """Whether `device` is a processor that computes bf16 by way of float32, number by number."""
    if precision != "bf16" or device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()
