"""RandAugment (Cubuk et al. 2020) on whole batches: some of thirteen changes for each picture.

Ranges are those of torchvision's version. Histogram equalisation, which has no strength, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from recaster.data.picture_changes import COLOURS, turn, warp

_SHEAR, _SHIFT, _TURN, _FACTOR, _BITS = 0.3, 150 / 331, math.radians(30), 0.9, 4
"""At full strength: tangent, share of half a side, angle, distance of a colour's factor from 1, lost bits."""


def rand_augment(images: Tensor, chance: Tensor, *, magnitude: float) -> Tensor:
    """`images` after one change for each of `chance`'s columns.

    Args:
        chance: in 0..1, `(rows, changes, 2)`: which, and to which side.
        magnitude: in 0..1, of all changes.
    """
    images = images.clone()
    for which, side in (pair.unbind(1) for pair in chance.unbind(1)):
        chosen = (which * len(_CHANGES)).long().clamp(max=len(_CHANGES) - 1)
        strength = torch.where(side < 0.5, -magnitude, magnitude)
        for number, change in enumerate(_CHANGES):
            rows = chosen == number
            if rows.any():
                images[rows] = change(images[rows], strength[rows]).clamp(0, 1)
    return images


def _coloured(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, strength: COLOURS[name](images, _numbers(1 + _FACTOR * strength))


def _sharpen(images: Tensor, strength: Tensor) -> Tensor:
    channels = images.shape[1]
    kernel = images.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]).div(13).expand(channels, 1, 3, 3)
    blurred = F.conv2d(F.pad(images, [1] * 4, mode="replicate"), kernel, groups=channels)
    return torch.lerp(blurred, images, _numbers(1 + _FACTOR * strength))


def _stretch_contrast(images: Tensor, strength: Tensor) -> Tensor:  # noqa: ARG001 - it has none
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _drop_bits(images: Tensor, strength: Tensor) -> Tensor:
    steps = 2 ** _numbers(8 - (_BITS * strength.abs()).round())
    return (images * steps).floor().clamp(max=steps - 1) / (steps - 1)


def _turn_over_bright(images: Tensor, strength: Tensor) -> Tensor:
    return torch.where(images >= _numbers(1 - strength.abs()), 1 - images, images)


def _numbers(values: Tensor) -> Tensor:
    return values[:, None, None, None]


_CHANGES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda images, strength: images,  # noqa: ARG005
    lambda images, strength: warp(images, [[1.0, _SHEAR * strength, 0.0], [0.0, 1.0, 0.0]]),
    lambda images, strength: warp(images, [[1.0, 0.0, 0.0], [_SHEAR * strength, 1.0, 0.0]]),
    lambda images, strength: warp(images, [[1.0, 0.0, 2 * _SHIFT * strength], [0.0, 1.0, 0.0]]),
    lambda images, strength: warp(images, [[1.0, 0.0, 0.0], [0.0, 1.0, 2 * _SHIFT * strength]]),
    lambda images, strength: turn(images, angle=_TURN * strength, scale=torch.ones_like(strength)),
    *(_coloured(name) for name in COLOURS),
    _sharpen,
    _stretch_contrast,
    _drop_bits,
    _turn_over_bright,
)
