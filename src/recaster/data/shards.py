"""Prepared splits as memory-mapped arrays that training ranks read without copying.

train.images.npy      (rows, channels, height, width) uint8 as in the source, or float32 scaled to 0..1
train.range.json      [0, 255]: the pixel values that become 0 and 1
train.labels.npy      (rows,) int64
train.ids.json        ["digit-0000", …]
splits.json           counts, label names, picture shape
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recaster.core.files import read_json, write_bytes, write_json
from recaster.data.records import Pixels

if TYPE_CHECKING:
    from recaster.recipe.data import ImageShape

_LIGHT_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One split."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    """`(rows, channels, height, width)`, memory-mapped."""
    labels: NDArray[np.int64]
    """`(rows,)` class numbers."""
    ids: list[str]
    minimum: float = 0.0
    """The pixel value that is 0 to a model."""
    maximum: float = 1.0
    """The one that is 1."""

    def scaled(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """The pictures of `rows`, `(rows, channels, height, width)`, 0..1."""
        pictures = self.images[rows].astype(np.float32)
        pictures -= np.float32(self.minimum)
        pictures /= np.float32(self.maximum - self.minimum)
        return pictures


def stack_pictures(
    pictures: Sequence[Pixels], image: ImageShape
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], float, float]:
    """Pictures `(height, width, channels)` as one array `(rows, channels, height, width)`, and its range.

    It stays in 8 bits where all pictures are; others are scaled to 0..1.
    """
    stacked = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
    if stacked.dtype == np.uint8:
        return stacked, image.minimum, image.maximum
    return ((stacked - image.minimum) / (image.maximum - image.minimum)).astype(np.float32), 0.0, 1.0


def measure_light(shard: Shard) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each picture's values in 0..1, `(rows,)` each."""
    pieces = []
    for start in range(0, len(shard.labels), _LIGHT_ROWS):
        pictures = shard.scaled(slice(start, start + _LIGHT_ROWS))
        pieces.append(np.stack([pictures.mean((1, 2, 3)), pictures.std((1, 2, 3))]))
    mean, deviation = np.concatenate(pieces, 1)
    return mean, deviation


def sample_pictures(folder: Path, split: str, *, most: int) -> NDArray[np.float32]:
    """At most so many pictures of a split in 0..1, spread evenly over it; the same each time."""
    shard = read_shard(folder, split)
    count = len(shard.labels)
    return shard.scaled(np.linspace(0, count - 1, min(most, count), dtype=np.int64))


def write_shard(folder: Path, split: str, shard: Shard) -> None:
    """Write one split into `folder`."""
    np.save(folder / f"{split}.images.npy", np.ascontiguousarray(shard.images))
    np.save(folder / f"{split}.labels.npy", shard.labels)
    write_json(folder / f"{split}.range.json", [shard.minimum, shard.maximum])
    write_bytes(folder / f"{split}.ids.json", json.dumps(shard.ids).encode())


def read_shard(folder: Path, split: str) -> Shard:
    """Map one split of `folder` into memory."""
    minimum, maximum = read_json(folder / f"{split}.range.json")
    return Shard(
        images=np.load(folder / f"{split}.images.npy", mmap_mode="r"),
        labels=np.load(folder / f"{split}.labels.npy"),
        ids=read_json(folder / f"{split}.ids.json"),
        minimum=minimum,
        maximum=maximum,
    )
