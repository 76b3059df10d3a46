"""Random changes to training pictures, many at a time, each by (seed, its row) alone.

    crop → flip → zoom and turn → colour → RandAugment → erase → mix with another row

What a row gets does not depend on the batch it stands in, so that a run that was cut, or is shared by other
ranks, makes the same pictures. Numbers are drawn on the processor; changes are made where the pictures are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recaster.core.errors import RecipeError
from recaster.core.seeds import derive_seed
from recaster.data.picture_changes import COLOURS, crop, erase, paste, turn
from recaster.data.rand_augment import rand_augment
from recaster.data.sending import send_to

Load = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]
"""From row numbers to pictures `(rows, channels, height, width)` in 0..1 and class numbers `(rows,)`."""


class Augmentation:
    """The recipe's `train.augmentation` over one split."""

    def __init__(self, section: Mapping[str, Any], *, rows: int, classes: int) -> None:
        if odd := [name for name in ("mosaic_probability", "vertical_flip") if section[name]]:
            raise RecipeError(
                "This change is of pictures with boxes.",
                where="train.augmentation",
                value=", ".join(odd),
                repair="remove it",
            )
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
        first, second = (self._shares(value) for value in (labels, their_labels))
        return images, torch.lerp(second, first, share[:, None])

    def _shares(self, labels: Tensor) -> Tensor:
        """`(rows, classes)` of class numbers, or of the labels that each row has."""
        return labels.float() if labels.ndim == 2 else F.one_hot(labels, self._classes).float()

    def _change(self, images: Tensor, rows: NDArray[np.int64], seed: int) -> Tensor:
        section, uniform = self._section, self._source(images, rows, seed)
        if pixels := section["shift_pixels"]:
            side = 2 * pixels + 1
            table = self._draw(
                seed, "shift", lambda _: np.random.default_rng(seed).integers(0, side, (self._rows, 2))
            )
            offsets = send_to(images.device, torch.from_numpy(table[rows]))
            images = crop(images, offsets, pixels=pixels, border=section["border"])
        if section["horizontal_flip"]:
            images = torch.where(uniform("flip", 1)[:, :, None, None] < 0.5, images.flip(3), images)
        if section["rotate_degrees"] or section["zoom"]:
            angle, scale = (2 * uniform("turn", 2) - 1).unbind(1)
            images = turn(
                images, angle=angle * np.radians(section["rotate_degrees"]), scale=1 + scale * section["zoom"]
            )
        for name, change in COLOURS.items():
            if strength := section[name]:
                factor = 1 + strength * (2 * uniform(name, 1) - 1)
                images = change(images, factor[:, :, None, None]).clamp(0, 1)
        if operations := section["rand_augment_operations"]:
            chance = uniform("rand augment", 2 * operations)
            images = rand_augment(
                images, chance.unflatten(1, (operations, 2)), magnitude=section["rand_augment_magnitude"]
            )
        if section["erase_probability"]:
            images = erase(
                images,
                uniform("erase", 5 + images.shape[1]),
                probability=section["erase_probability"],
            )
        return images

    def _mix(
        self, images: Tensor, others: Tensor, rows: NDArray[np.int64], seed: int
    ) -> tuple[Tensor, Tensor]:
        """`images` with a share of `others`, and each row's own share `(rows,)`."""
        uniform = self._source(images, rows, seed)
        blended, blend_share = self._blend(images, others, rows, seed)
        if not (alpha := self._section["cutmix_alpha"]):
            return blended, blend_share
        shares = self._draw(seed, "cutmix", lambda random: random.beta(alpha, alpha, self._rows))
        share, places = _to_tensor(shares[rows], images.device), uniform("cutmix place", 2)
        pasted, paste_share = paste(images, others, share=share, places=places)
        if not self._section["mixup_alpha"]:
            return pasted, paste_share
        chosen = uniform("mix kind", 1)[:, 0] < 0.5
        return torch.where(chosen[:, None, None, None], pasted, blended), torch.where(
            chosen, paste_share, blend_share
        )

    def _blend(
        self, images: Tensor, others: Tensor, rows: NDArray[np.int64], seed: int
    ) -> tuple[Tensor, Tensor]:
        if not (alpha := self._section["mixup_alpha"]):
            return images, images.new_ones(len(rows))
        shares = self._draw(seed, "mixup", lambda random: random.beta(alpha, alpha, self._rows))
        share = _to_tensor(shares[rows], images.device)
        return torch.lerp(others, images, share[:, None, None, None]), share

    def _source(self, images: Tensor, rows: NDArray[np.int64], seed: int) -> Callable[[str, int], Tensor]:
        """From a purpose and `columns` to numbers in 0..1, `(rows, columns)`, where `images` are."""

        def draw(purpose: str, columns: int) -> Tensor:
            table = self._draw(
                seed, purpose, lambda random: random.random((self._rows, columns), dtype=np.float32)
            )
            return send_to(images.device, torch.from_numpy(table[rows]))

        return draw

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


def _to_tensor(values: NDArray[Any], device: torch.device) -> Tensor:
    return send_to(device, torch.from_numpy(values.astype(np.float32)))
