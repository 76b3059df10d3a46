"""Synthetic pictures of discs, squares and triangles on a noisy ground, made by a seeded script.

Nothing that is measured on them says anything of photographs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.data.boxes import Box, dump_boxes
from recaster.data.records import RawRecord

SHAPES = ("disc", "square", "triangle")
_PICTURES, _SIDE, _MOST = 240, 64, 3
_COLOURS = {"disc": (220, 70, 60), "square": (60, 170, 70), "triangle": (70, 90, 220)}


def source_file() -> Path:
    """The file that decides the records."""
    return Path(__file__)


def make_shapes() -> Iterator[RawRecord]:
    """240 pictures of 64x64 in colour, each with one to three shapes that hardly overlap; always the same."""
    random = np.random.default_rng(30)
    for number in range(_PICTURES):
        picture = random.normal(120, 18, (_SIDE, _SIDE, 3))
        boxes: list[Box] = []
        for _ in range(int(random.integers(1, _MOST + 1))):
            side = int(random.integers(12, 30))
            left, top = (int(value) for value in random.integers(0, _SIDE - side, 2))
            sides = (float(left), float(top), float(left + side), float(top + side))
            label = SHAPES[int(random.integers(len(SHAPES)))]
            if not any(_overlap(sides, box.sides) for box in boxes):
                colour = np.array(_COLOURS[label]) + random.normal(0, 15, 3)
                picture[top : top + side, left : left + side][_mask(label, side)] = colour
                boxes.append(Box(label=label, sides=sides))
        yield RawRecord(
            id=f"shapes-{number:04d}",
            label=None,
            where=f"synthetic picture {number}",
            pixels=np.clip(picture, 0, 255).astype(np.uint8),
            text=dump_boxes(boxes),
        )


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _mask(label: str, side: int) -> NDArray[np.bool_]:
    down, right = np.mgrid[0:side, 0:side] + 0.5
    mask = np.ones((side, side), dtype=bool)
    if label == "disc":
        mask &= (down - side / 2) ** 2 + (right - side / 2) ** 2 <= (side / 2) ** 2
    elif label == "triangle":
        mask &= np.abs(right - side / 2) <= down / 2
    return mask
