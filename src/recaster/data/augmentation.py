"""Random changes to training pictures, many at a time, each by (seed, its row) alone.

    crop → flip → zoom and turn → colour → erase → mix with another row

What a row gets does not depend on the batch it stands in, so that a run that was cut, or is shared by other
ranks, makes the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recaster.core.seeds import derive_seed

_ERASED_AREA, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # Zhong et al. 2017, as torchvision has them
_GREY = (0.299, 0.587, 0.114)
Load = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]
"""From row numbers to pictures `(rows, channels, height, width)` in 0..1 and class numbers `(rows,)`."""


class Augmentation:
    """The recipe's `train.augmentation` over one split."""

    def __init__(self, section: Mapping[str, Any], *, rows: int, classes: int) -> None:
        self._section, self._rows, self._classes = section, rows, classes
        self._drawn: tuple[int, dict[str, NDArray[Any]]] = (-1, {})

    def batch(self, load: Load, rows: NDArray[np.int64], seed: int) -> tuple[Tensor, Tensor]:
        """Pictures of `rows`, and their classes `(rows,)` or, when mixed, shares `(rows, classes)`."""
        images, labels = load(rows)
        images = self._change(images, rows, seed)
        if not (self._section["mixup_alpha"] or self._section["cutmix_alpha"]):
            return images, labels
        partners = self._draw(seed, "partner", lambda random: random.integers(0, self._rows, self._rows))[
            rows
        ]
        others, their_labels = load(partners)
        images, share = self._mix(images, self._change(others, partners, seed), rows, seed)
        first, second = (F.one_hot(value, self._classes).float() for value in (labels, their_labels))
        return images, torch.lerp(second, first, share[:, None])

    def _change(self, images: Tensor, rows: NDArray[np.int64], seed: int) -> Tensor:
        section = self._section
        if pixels := section["shift_pixels"]:
            side = 2 * pixels + 1
            table = self._draw(
                seed, "shift", lambda _: np.random.default_rng(seed).integers(0, side, (self._rows, 2))
            )
            images = crop(images, torch.from_numpy(table[rows]), pixels=pixels, border=section["border"])
        if section["horizontal_flip"]:
            images = torch.where(
                self._uniform(seed, "flip", rows)[:, :, None, None] < 0.5, images.flip(3), images
            )
        if section["rotate_degrees"] or section["zoom"]:
            angle, scale = (2 * self._uniform(seed, "turn", rows, columns=2) - 1).unbind(1)
            images = turn(
                images, angle=angle * np.radians(section["rotate_degrees"]), scale=1 + scale * section["zoom"]
            )
        for name, change in _COLOURS.items():
            if strength := section[name]:
                factor = 1 + strength * (2 * self._uniform(seed, name, rows) - 1)
                images = change(images, factor[:, :, None, None]).clamp(0, 1)
        if section["erase_probability"]:
            images = erase(
                images,
                self._uniform(seed, "erase", rows, columns=5 + images.shape[1]),
                probability=section["erase_probability"],
            )
        return images

    def _mix(
        self, images: Tensor, others: Tensor, rows: NDArray[np.int64], seed: int
    ) -> tuple[Tensor, Tensor]:
        """`images` with a share of `others`, and each row's own share `(rows,)`."""
        blended, blend_share = self._blend(images, others, rows, seed)
        if not (alpha := self._section["cutmix_alpha"]):
            return blended, blend_share
        shares = self._draw(seed, "cutmix", lambda random: random.beta(alpha, alpha, self._rows))
        places = self._uniform(seed, "cutmix place", rows, columns=2)
        pasted, paste_share = paste(images, others, share=_to_tensor(shares[rows]), places=places)
        if not self._section["mixup_alpha"]:
            return pasted, paste_share
        chosen = self._uniform(seed, "mix kind", rows)[:, 0] < 0.5
        return torch.where(chosen[:, None, None, None], pasted, blended), torch.where(
            chosen, paste_share, blend_share
        )

    def _blend(
        self, images: Tensor, others: Tensor, rows: NDArray[np.int64], seed: int
    ) -> tuple[Tensor, Tensor]:
        if not (alpha := self._section["mixup_alpha"]):
            return images, torch.ones(len(rows))
        shares = self._draw(seed, "mixup", lambda random: random.beta(alpha, alpha, self._rows))
        share = _to_tensor(shares[rows])
        return torch.lerp(others, images, share[:, None, None, None]), share

    def _uniform(self, seed: int, purpose: str, rows: NDArray[np.int64], *, columns: int = 1) -> Tensor:
        """Numbers in 0..1, `(rows, columns)`."""
        table = self._draw(
            seed, purpose, lambda random: random.random((self._rows, columns), dtype=np.float32)
        )
        return torch.from_numpy(table[rows])

    def _draw(
        self, seed: int, purpose: str, make: Callable[[np.random.Generator], NDArray[Any]]
    ) -> NDArray[Any]:
        """One entry for each row of the split, made once for each seed."""
        if self._drawn[0] != seed:
            self._drawn = (seed, {})
        drawn = self._drawn[1]
        if purpose not in drawn:
            drawn[purpose] = make(np.random.default_rng(derive_seed(seed, purpose)))
        return drawn[purpose]


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
    return windows[torch.arange(len(images)), :, down, right].contiguous()


def turn(images: Tensor, *, angle: Tensor, scale: Tensor) -> Tensor:
    """Pictures turned by `angle` (radians, `(rows,)`), enlarged by `scale`; what was outside is reflected."""
    height, width = images.shape[-2:]
    cos, sin, none = angle.cos() / scale, angle.sin() / scale, torch.zeros_like(angle)
    # The grid's axes both go from -1 to 1, whatever the sides' lengths.
    down = torch.stack([cos, -sin * (height / width), none], 1)
    right = torch.stack([sin * (width / height), cos, none], 1)
    grid = F.affine_grid(torch.stack([down, right], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _to_grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * torch.tensor(_GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_to_grey(images).mean((2, 3), keepdim=True), images, factor)


_COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": lambda images, factor: images * factor,
    "contrast": _contrast,
    "saturation": lambda images, factor: torch.lerp(_to_grey(images), images, factor),
}
"""Each from pictures and factors `(rows, 1, 1, 1)` around 1."""


def erase(images: Tensor, chance: Tensor, *, probability: float) -> Tensor:
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
    middle = places * torch.tensor([height, width])
    half = torch.stack([side * height, side * width], 1) / 2
    edge = torch.tensor([height, width])
    start, end = (middle - half).round().clamp(min=0), torch.minimum((middle + half).round(), edge)
    (top, left), (tall, wide) = start.unbind(1), (end - start).unbind(1)
    mask = _rectangle(images, top=top, left=left, tall=tall, wide=wide)
    return torch.where(mask, others, images), 1 - tall * wide / (height * width)


def _rectangle(images: Tensor, *, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """Where each picture's rectangle is, `(rows, 1, height, width)`."""
    down, right = (torch.arange(side) for side in images.shape[-2:])
    rows = (down >= top[:, None]) & (down < (top + tall)[:, None])
    columns = (right >= left[:, None]) & (right < (left + wide)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _to_tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
