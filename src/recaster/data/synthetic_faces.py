"""Synthetic faces, drawn by a seeded script: ellipses of 40 made-up people under changing light and pose.

Nobody is on them, and nothing measured on them says anything of real faces.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.data.records import RawRecord

_PEOPLE, _PICTURES, _SIDE = 40, 8, 32
_GROUPS = ("round", "narrow")


def source_file() -> Path:
    """The file that decides the records."""
    return Path(__file__)


def make_faces() -> Iterator[RawRecord]:
    """320 grey pictures of 32x32, eight of each person; always the same."""
    random = np.random.default_rng(23)
    for person in range(_PEOPLE):
        traits = random.random(10)
        for number in range(_PICTURES):
            name = f"person-{person:02d}"
            yield RawRecord(
                id=f"{name}/{number}",
                label=name,
                where=f"synthetic face {number} of {name}",
                pixels=_draw(traits, random),
                text=_GROUPS[int(traits[0] < 0.5)],
            )


def _draw(traits: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.uint8]:
    """One picture of a face with `traits` in 0..1: head, skin, eyes, nose, mouth, hair."""
    across, down = random.normal(0, 0.06, 2)
    scale, light, shade = 1 + random.normal(0, 0.06), 1 + random.normal(0, 0.15), random.normal(0, 0.1)
    y, x = (np.mgrid[:_SIDE, :_SIDE] + 0.5) / _SIDE * 2 - 1
    x, y = (x - across) / scale, (y - down) / scale
    picture = np.full((_SIDE, _SIDE), 0.1)
    width, height = 0.55 + 0.25 * traits[0], 0.7 + 0.2 * traits[1]
    _paint(picture, x=x, y=y, middle=(0, 0), radii=(width, height), grey=0.45 + 0.4 * traits[2])
    picture[(y < -0.75 + 0.5 * traits[3]) & (picture > 0.1)] = 0.15 + 0.3 * traits[4]
    apart, level, size = 0.18 + 0.2 * traits[5], -0.25 + 0.2 * traits[6], 0.06 + 0.08 * traits[7]
    for side in (-1, 1):
        _paint(picture, x=x, y=y, middle=(side * apart, level), radii=(1.4 * size, size), grey=0.05)
    _paint(picture, x=x, y=y, middle=(0, level + 0.3), radii=(0.06, 0.1 + 0.1 * traits[8]), grey=0.35)
    smile = 0.05 + 0.05 * random.random()
    _paint(picture, x=x, y=y, middle=(0, 0.45), radii=(0.15 + 0.2 * traits[9], smile), grey=0.2)
    picture = picture * light * (1 + shade * x) + random.normal(0, 0.04, picture.shape)
    pixels: NDArray[np.uint8] = np.round(255 * picture.clip(0, 1)).astype(np.uint8)
    return pixels[:, :, None]


def _paint(
    picture: NDArray[np.float64],
    *,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    middle: tuple[float, float],
    radii: tuple[float, float],
    grey: float,
) -> None:
    """Fill an ellipse."""
    inside = ((x - middle[0]) / radii[0]) ** 2 + ((y - middle[1]) / radii[1]) ** 2 < 1
    picture[inside] = grey
