"""Random changes to training pictures and their boxes, each by (seed, its row) alone.

mosaic of four → mirror → zoom and shift → colour
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recaster.core.errors import RecipeError
from recaster.core.seeds import derive_seed
from recaster.data.augmentation import Load
from recaster.data.picture_changes import COLOURS

_USED = {
    "mosaic_probability",
    "horizontal_flip",
    "vertical_flip",
    "zoom",
    "shift_pixels",
    "brightness",
    "contrast",
    "saturation",
    "border",
}
_LEAST_LEFT = 0.3
"""Share of a box's area that must still be seen; of less, nobody could tell what it was."""
_PLACES = 2
"""Times as many boxes as a picture has a place for, since a mosaic may have more."""


class BoxAugmentation:
    """The recipe's `train.augmentation` over one split.

    Raises:
        RecipeError: it names a change that boxes do not follow.
    """

    def __init__(self, section: Mapping[str, Any], *, rows: int) -> None:
        used = [
            name
            for name, value in section.items()
            if value and name not in _USED and name != "rand_augment_magnitude"
        ]
        if used or section["border"] != "zero":
            raise RecipeError(
                "Boxes do not follow this change of their picture.",
                where="train.augmentation",
                value=", ".join(used) or "border reflect",
                repair=f"remove it; there are {', '.join(sorted(_USED - {'border'}))}",
            )
        self._section, self._rows = section, rows
        self._drawn: tuple[int, dict[str, NDArray[np.float32]]] = (-1, {})

    def batch(self, load: Load, rows: NDArray[np.int64], seed: int) -> tuple[Tensor, Tensor]:
        """Pictures `(rows, channels, height, width)` and boxes `(rows, places, 5)` of `rows`."""
        section = self._section
        images, boxes = load(rows)
        boxes = F.pad(boxes, (0, 0, 0, boxes.shape[1] * (_PLACES - 1)), value=-1.0)
        if section["mosaic_probability"]:
            images, boxes = self._mosaic(load, images, boxes, rows, seed)
        height, width = images.shape[-2:]
        if section["horizontal_flip"]:
            chosen = self._uniform(seed, "flip", rows)[:, 0] < 0.5
            images, boxes = _mirror(images, boxes, chosen, side=width, axis=3)
        if section["vertical_flip"]:
            chosen = self._uniform(seed, "vertical flip", rows)[:, 0] < 0.5
            images, boxes = _mirror(images, boxes, chosen, side=height, axis=2)
        if section["zoom"] or section["shift_pixels"]:
            chance = 2 * self._uniform(seed, "zoom", rows, columns=3) - 1
            scale = 1 + chance[:, 0] * section["zoom"]
            images, boxes = _zoom(images, boxes, scale=scale, shift=chance[:, 1:] * section["shift_pixels"])
        for name, change in COLOURS.items():
            if strength := section[name]:
                factor = 1 + strength * (2 * self._uniform(seed, name, rows) - 1)
                images = change(images, factor[:, :, None, None]).clamp(0, 1)
        return images, boxes

    def _mosaic(
        self, load: Load, images: Tensor, boxes: Tensor, rows: NDArray[np.int64], seed: int
    ) -> tuple[Tensor, Tensor]:
        """Some pictures put together from pieces of four, each in its own scale."""
        chance = self._uniform(seed, "mosaic", rows, columns=3 + 3 + 8).numpy()
        made, placed = images.clone(), boxes.clone()
        for number in np.flatnonzero(chance[:, 0] < self._section["mosaic_probability"]).tolist():
            others = (chance[number, 3:6] * self._rows).astype(np.int64).clip(0, self._rows - 1)
            pictures, theirs = load(np.concatenate([rows[number : number + 1], others]))
            made[number], placed[number] = _put_together(
                pictures,
                theirs,
                cut=0.25 + 0.5 * chance[number, 1:3],
                corners=chance[number, 6:].reshape(4, 2),
                places=boxes.shape[1],
            )
        return made, placed

    def _uniform(self, seed: int, purpose: str, rows: NDArray[np.int64], *, columns: int = 1) -> Tensor:
        """Numbers in 0..1, `(rows, columns)`; one row of a table for each row of the split."""
        if self._drawn[0] != seed:
            self._drawn = (seed, {})
        drawn = self._drawn[1]
        if purpose not in drawn:
            random = np.random.default_rng(derive_seed(seed, purpose))
            drawn[purpose] = random.random((self._rows, columns), dtype=np.float32)
        return torch.from_numpy(drawn[purpose][rows])


def _put_together(
    pictures: Tensor, boxes: Tensor, *, cut: NDArray[Any], corners: NDArray[Any], places: int
) -> tuple[Tensor, Tensor]:
    """One picture out of windows of four, and the boxes in it.

    Args:
        cut: where the four meet, as shares of height and width.
        corners: from where in its own picture each window is taken, in 0..1, `(4, 2)`.
    """
    height, width = pictures.shape[-2:]
    down, right = round(float(cut[0]) * height), round(float(cut[1]) * width)
    made, found = torch.zeros_like(pictures[0]), []
    spans = [
        (0, down, 0, right),
        (0, down, right, width),
        (down, height, 0, right),
        (down, height, right, width),
    ]
    for picture, own, (y0, y1, x0, x1), (from_down, from_right) in zip(
        pictures, boxes, spans, corners.tolist(), strict=True
    ):
        top, left = int(from_down * (height - (y1 - y0))), int(from_right * (width - (x1 - x0)))
        made[:, y0:y1, x0:x1] = picture[:, top : top + y1 - y0, left : left + x1 - x0]
        shift = torch.tensor([0.0, x0 - left, y0 - top, x0 - left, y0 - top])
        moved = torch.where(own[:, :1] >= 0, own + shift, own)
        found.append(clip_boxes(moved, torch.tensor([x0, y0, x1, y1], dtype=torch.float32)))
    together = torch.cat(found)
    together = together[(together[:, 0] < 0).to(torch.uint8).argsort(dim=0, stable=True)][:places]
    return made, F.pad(together, (0, 0, 0, places - len(together)), value=-1.0)


def clip_boxes(boxes: Tensor, window: Tensor) -> Tensor:
    """Boxes `(…, 5)` cut to `window` (left, top, right, bottom); of which too little is left become -1."""
    sides = boxes[..., 1:]
    cut = torch.cat(
        [torch.maximum(sides[..., :2], window[:2]), torch.minimum(sides[..., 2:], window[2:])], -1
    )
    before = (sides[..., 2:] - sides[..., :2]).clamp(min=0).prod(-1)
    after = (cut[..., 2:] - cut[..., :2]).clamp(min=0).prod(-1)
    kept = (boxes[..., 0] >= 0) & (after > 0) & (after >= _LEAST_LEFT * before)
    return torch.where(kept[..., None], torch.cat([boxes[..., :1], cut], -1), -torch.ones_like(boxes))


def _mirror(images: Tensor, boxes: Tensor, chosen: Tensor, *, side: int, axis: int) -> tuple[Tensor, Tensor]:
    low, high = (1, 3) if axis == 3 else (2, 4)
    turned = boxes.clone()
    turned[:, :, low], turned[:, :, high] = side - boxes[:, :, high], side - boxes[:, :, low]
    turned = torch.where(boxes[:, :, :1] >= 0, turned, boxes)
    return (
        torch.where(chosen[:, None, None, None], images.flip(axis), images),
        torch.where(chosen[:, None, None], turned, boxes),
    )


def _zoom(images: Tensor, boxes: Tensor, *, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures enlarged about their middle, then shifted right and down; what was outside is black.

    Args:
        scale: `(rows,)`.
        shift: pixels, `(rows, 2)`.
    """
    height, width = images.shape[-2:]
    half = torch.tensor([width / 2, height / 2])
    matrix = torch.zeros(len(images), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale
    matrix[:, :, 2] = -shift / half / scale[:, None]  # of where a pixel comes from, in halves of a side
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    middle, factor = half.repeat(2), scale[:, None, None]
    sides = (boxes[:, :, 1:] - middle) * factor + middle + shift.repeat(1, 2)[:, None]
    told = torch.cat([boxes[:, :, :1], sides], 2)
    told = torch.where(boxes[:, :, :1] >= 0, told, boxes)
    return moved, clip_boxes(told, torch.tensor([0.0, 0.0, width, height]))
