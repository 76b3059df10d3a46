"""Depthwise convolutions in bf16 on a CPU: gradients by way of those that oneDNN has quick kernels for.

It has none for the gradient of a filter wider than 3, nor for that of a strided convolution's input. Here
the first is computed a 3x3 piece at a time, the second in float32. docs/log.md has the times.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PIECE = 3


class _Grid(NamedTuple):
    """Where a filter is applied."""

    stride: int
    padding: list[int]
    """Rows above and below, columns left and right."""


def quicken_depthwise(model: nn.Module) -> int:
    """Give the depthwise convolutions of `model` that gain by it these gradients; return how many.

    Parameters keep their names, and results their values but for rounding. Nothing changes other than in
    bf16 on a CPU.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Conv2d) and _gains(module)]
    for module in found:
        # What `forward` of nn.Conv2d calls, so that a subclass that pads in its own way goes on doing so.
        grid = _Grid(int(module.stride[0]), [int(size) for size in module.padding])
        vars(module)["_conv_forward"] = partial(_convolve, grid)
    return len(found)


def _gains(module: nn.Conv2d) -> bool:
    depthwise = module.groups == module.in_channels == module.out_channels > 1
    square = len({*module.kernel_size}) == len({*module.stride}) == 1
    plain = (
        module.padding_mode == "zeros" and {*module.dilation} == {1} and not isinstance(module.padding, str)
    )
    return depthwise and square and plain and (module.kernel_size[0] > _PIECE or module.stride[0] > 1)


def _convolve(grid: _Grid, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
    if images.device.type != "cpu" or kind != torch.bfloat16 or not torch.is_grad_enabled():
        return F.conv2d(images, weight, bias, *grid, 1, len(weight))
    # Autocast would not cast what a function of one's own is given.
    bias = None if bias is None else bias.to(kind)
    return convolve_depthwise(images.to(kind), weight.to(kind), bias, grid.stride, grid.padding)


def convolve_depthwise(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Sequence[int] = (0, 0),
) -> Tensor:
    """`torch.nn.functional.conv2d` with a filter a channel, and the gradients of this module.

    Args:
        images: `(batch, channels, height, width)`.
        weight: `(channels, 1, side, side)`.
        bias: `(channels,)`.
        padding: rows above and below, columns left and right.
    """
    grid = _Grid(stride, [*padding])
    result: Tensor = _Depthwise.apply(images, weight, bias, grid)  # type: ignore[no-untyped-call]
    return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, grid: _Grid) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.grid = grid
        return F.conv2d(images, weight, bias, *grid, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (images, weight) = grads, ctx.saved_tensors
        of_images, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            _images_gradient(grad, images, weight, ctx.grid) if of_images else None,
            _weight_gradient(grad, images, weight, ctx.grid) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _images_gradient(grad: Tensor, images: Tensor, weight: Tensor, grid: _Grid) -> Tensor:
    if grid.stride == 1 or images.dtype != torch.bfloat16:
        return _whole_gradients(grad, images, weight, grid, images=True)
    like = torch.empty_like(images, dtype=torch.float32)  # only its shape counts
    wide = _whole_gradients(grad.float(), like, weight.float(), grid, images=True)
    return wide.to(images.dtype)


def _weight_gradient(grad: Tensor, images: Tensor, weight: Tensor, grid: _Grid) -> Tensor:
    side = weight.shape[-1]
    if side <= _PIECE:
        return _whole_gradients(grad, images, weight, grid, images=False)
    rows, columns = grid.padding
    if rows or columns:
        images = F.pad(images, (columns, columns, rows, rows))
    height, width = (grid.stride * (size - 1) + _PIECE for size in grad.shape[-2:])
    last = images.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    piece, whole = weight[..., :_PIECE, :_PIECE], torch.empty_like(weight)
    starts = [*range(0, side - _PIECE, _PIECE), side - _PIECE]
    for top in starts:
        for left in starts:
            seen = images[..., top : top + height, left : left + width].contiguous(memory_format=layout)
            found = _whole_gradients(grad, seen, piece, _Grid(grid.stride, [0, 0]), images=False)
            whole[..., top : top + _PIECE, left : left + _PIECE] = found
    return whole


def _whole_gradients(grad: Tensor, seen: Tensor, weight: Tensor, grid: _Grid, *, images: bool) -> Tensor:
    """torch's own gradient of `seen`, or of `weight`."""
    found = torch.ops.aten.convolution_backward(
        grad,
        seen,
        weight,
        None,
        [grid.stride, grid.stride],
        grid.padding,
        [1, 1],
        False,  # not transposed
        [0, 0],
        len(weight),
        [images, not images, False],
    )
    gradient: Tensor = found[0 if images else 1]
    return gradient
