"""Prepared splits as memory-mapped arrays that training ranks read without copying.

train.images.npy      (rows, channels, height, width) float32, scaled to 0..1
train.labels.npy      (rows,) int64
train.ids.json        ["digit-0000", …]
splits.json           counts, label names, picture shape
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.core.files import read_json, write_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One split."""

    images: NDArray[np.float32]
    """`(rows, channels, height, width)`, 0..1, memory-mapped."""
    labels: NDArray[np.int64]
    """`(rows,)` class numbers."""
    ids: list[str]


def write_shard(folder: Path, split: str, shard: Shard) -> None:
    """Write one split into `folder`."""
    np.save(folder / f"{split}.images.npy", np.ascontiguousarray(shard.images))
    np.save(folder / f"{split}.labels.npy", shard.labels)
    write_bytes(folder / f"{split}.ids.json", json.dumps(shard.ids).encode())


def read_shard(folder: Path, split: str) -> Shard:
    """Map one split of `folder` into memory."""
    return Shard(
        images=np.load(folder / f"{split}.images.npy", mmap_mode="r"),
        labels=np.load(folder / f"{split}.labels.npy"),
        ids=read_json(folder / f"{split}.ids.json"),
    )
