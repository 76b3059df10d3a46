"""Changes to pictures `(rows, channels, height, width)` in 0..1, many at a time, each by its own numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_ERASED_AREA, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # Zhong et al. 2017, as torchvision has them
_GREY = (0.299, 0.587, 0.114)


def crop(images: Tensor, offsets: Tensor, *, pixels: int, border: str) -> Tensor:
    """Windows of the pictures' size out of the pictures with a border of `pixels`.

    Args:
        offsets: `(rows, 2)`, 0 to 2 * pixels, down and right.
        border: `zero` or `reflect`.
    """
    padded = F.pad(images, [pixels] * 4, mode="constant" if border == "zero" else "reflect")
    height, width = images.shape[-2:]
    down, right = offsets.unbind(1)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(images), device=images.device), :, down, right].contiguous()


def turn(images: Tensor, *, angle: Tensor, scale: Tensor) -> Tensor:
    """Pictures turned by `angle` (radians, `(rows,)`), enlarged by `scale`; what was outside is reflected."""
    height, width = images.shape[-2:]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # Places go from -1 to 1 along both sides, whatever these' lengths.
    return warp(images, [[cos, -sin * (height / width), 0.0], [sin * (width / height), cos, 0.0]])


def warp(images: Tensor, places: Sequence[Sequence[Tensor | float]]) -> Tensor:
    """Pictures whose pixel at (x, y, 1), in -1..1, was at `places` times that; what was outside is reflected.

    Args:
        places: two rows of three, each a number or one for each picture, `(rows,)`.
    """
    ones = images.new_ones(len(images))
    matrix = torch.stack([torch.stack([entry * ones for entry in row], 1) for row in places], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def to_grey(images: Tensor) -> Tensor:
    """`(rows, 1, height, width)`."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * images.new_tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(to_grey(images).mean((2, 3), keepdim=True), images, factor)


COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": lambda images, factor: images * factor,
    "contrast": _contrast,
    "saturation": lambda images, factor: torch.lerp(to_grey(images), images, factor),
}
"""Each from pictures and factors `(rows, 1, 1, 1)` around 1."""


def erase(images: Tensor, chance: Tensor, *, probability: float | Tensor) -> Tensor:
    """Pictures with a rectangle of one random colour (Zhong et al. 2017).

    Args:
        chance: in 0..1, `(rows, 5 + channels)`: whether, area, ratio of sides, place, colour.
    """
    height, width = images.shape[-2:]
    whether, area, ratio, down, right = chance[:, :5].unbind(1)
    low, high = _ERASED_AREA
    pixels = (low + (high - low) * area) * height * width
    flat, steep = np.log(_ERASED_RATIO).tolist()
    shape = torch.exp(flat + (steep - flat) * ratio)
    tall = (pixels * shape).sqrt().clamp(1, height).round()
    wide = (pixels / shape).sqrt().clamp(1, width).round()
    top, left = (down * (height - tall + 1)).floor(), (right * (width - wide + 1)).floor()
    mask = _rectangle(images, top=top, left=left, tall=tall, wide=wide)
    mask &= (whether < probability)[:, None, None, None]
    return torch.where(mask, chance[:, 5:, None, None], images)


def paste(images: Tensor, others: Tensor, *, share: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """`images` with a rectangle of `others` (CutMix, Yun et al. 2019), and what share of each is its own.

    Args:
        share: of each picture that should stay its own, `(rows,)`; more does where an edge cuts it.
        places: of the rectangles' middles, in 0..1, `(rows, 2)`.
    """
    height, width = images.shape[-2:]
    side = (1 - share).sqrt()
    edge = places.new_tensor([height, width])
    middle = places * edge
    half = torch.stack([side * height, side * width], 1) / 2
    start, end = (middle - half).round().clamp(min=0), torch.minimum((middle + half).round(), edge)
    (top, left), (tall, wide) = start.unbind(1), (end - start).unbind(1)
    mask = _rectangle(images, top=top, left=left, tall=tall, wide=wide)
    return torch.where(mask, others, images), 1 - tall * wide / (height * width)


def _rectangle(images: Tensor, *, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """Where each picture's rectangle is, `(rows, 1, height, width)`."""
    down, right = (torch.arange(side, device=images.device) for side in images.shape[-2:])
    rows = (down >= top[:, None]) & (down < (top + tall)[:, None])
    columns = (right >= left[:, None]) & (right < (left + wide)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]
