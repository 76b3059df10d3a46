"""Prepared splits of pictures with boxes, memory-mapped.

train.images.npy      (rows, channels, height, width) uint8 as in the source, or float32 scaled to 0..1
train.range.json      [0, 255]: the pixel values that become 0 and 1
train.labels.npy      (rows, boxes, 5) float32: class number, left, top, right, bottom in pixels; -1 fills up
train.ids.json        ["BloodImage_00000", …]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.core.files import read_json, write_json
from recaster.data.boxes import Box
from recaster.data.shards import Shard

Targets = NDArray[np.float32]
"""`(rows, boxes, 5)`."""


def stack_boxes(pictures: Sequence[Sequence[Box]], numbers: Mapping[str, int]) -> Targets:
    """The boxes of each picture, as many places for all as the fullest needs, at least one.

    Args:
        numbers: the class number of each label.
    """
    most = max(1, *(len(boxes) for boxes in pictures)) if pictures else 1
    stacked = np.full((len(pictures), most, 5), -1, dtype=np.float32)
    for row, boxes in enumerate(pictures):
        for place, box in enumerate(boxes):
            stacked[row, place] = (numbers[box.label], *box.sides)
    return stacked


def write_box_shard(folder: Path, split: str, shard: Shard, boxes: Targets) -> None:
    """Write one split into `folder`; the labels of `shard` are not used."""
    np.save(folder / f"{split}.images.npy", np.ascontiguousarray(shard.images))
    np.save(folder / f"{split}.labels.npy", boxes)
    write_json(folder / f"{split}.range.json", [shard.minimum, shard.maximum])
    write_json(folder / f"{split}.ids.json", shard.ids)


def read_box_shard(folder: Path, split: str) -> tuple[Shard, Targets]:
    """Map one split of `folder` into memory; the shard's labels are how many boxes each picture has."""
    minimum, maximum = read_json(folder / f"{split}.range.json")
    boxes: Targets = np.load(folder / f"{split}.labels.npy")
    shard = Shard(
        images=np.load(folder / f"{split}.images.npy", mmap_mode="r"),
        labels=(boxes[:, :, 0] >= 0).sum(1),
        ids=read_json(folder / f"{split}.ids.json"),
        minimum=minimum,
        maximum=maximum,
    )
    return shard, boxes
