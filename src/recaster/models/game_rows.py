"""What one row of a GAN's training holds, as one vector: the loop knows one tensor of inputs.

noise n… | chances c… | class | pixels of a real picture …

The noise and the chances of augmentation come with the row, so that a step is the same on any number of ranks
and in any number of micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHANCES = 12
"""Random numbers in 0..1 a row; see `models.adaptive_augmentation`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GameRows:
    """Some rows, taken apart."""

    noise: Tensor
    """`(rows, noise)`, standard normal."""
    chances: Tensor
    """`(rows, CHANCES)` in 0..1."""
    classes: Tensor
    """`(rows,)` class numbers; all 0 where there are none."""
    pictures: Tensor
    """`(rows, channels, height, width)` in 0..1."""


def join_rows(rows: GameRows) -> Tensor:
    """`(rows, noise + CHANCES + 1 + pixels)` float32."""
    parts = [rows.noise, rows.chances, rows.classes[:, None].float(), rows.pictures.flatten(1)]
    return torch.cat(parts, 1)


def part_rows(joined: Tensor, *, noise: int, shape: tuple[int, int, int]) -> GameRows:
    """The inverse of `join_rows`.

    Args:
        shape: channels, height, width.
    """
    pixels = shape[0] * shape[1] * shape[2]
    first, chances, classes, pictures = joined.split([noise, CHANCES, 1, pixels], 1)
    return GameRows(
        noise=first,
        chances=chances,
        classes=classes[:, 0].long(),
        pictures=pictures.unflatten(1, shape),
    )
