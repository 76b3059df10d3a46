"""Pictures in a grid: each in its cell, upright, its sides in their ratio, and where `add` says it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recaster.evaluation.picture_grid import PictureGrid

_DPI = 100


def test_pictures_are_where_add_says(tmp_path: Path) -> None:
    grid = PictureGrid(columns=2, rows=2, cell=(2.0, 1.5), title="a title")
    wide, tall = np.zeros((4, 12, 3), dtype=np.float32), np.zeros((12, 4, 1), dtype=np.float32)
    wide[0, 0], wide[3, 11] = (1, 0, 0), (0, 0, 1)  # upper left red, lower right blue
    tall[11] = 0.5
    places = [grid.add(wide, "one"), grid.add(tall, colour="red"), grid.add(wide)]
    grid.save(tmp_path / "grid.png", dpi=_DPI)
    drawn = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    assert drawn.shape[1] == 400 and drawn.shape[0] > 300  # the title has room of its own

    def pixel(number: int, row: int, column: int) -> list[int]:
        place = places[number]
        down, right = (place.top + place.scale * (row + 0.5), place.left + place.scale * (column + 0.5))
        return drawn[int(down * _DPI), int(right * _DPI)].tolist()

    for number in (0, 2):
        assert pixel(number, 0, 0) == [255, 0, 0]
        assert pixel(number, 3, 11) == [0, 0, 255]
        assert pixel(number, 1, 5) == [0, 0, 0]
        assert pixel(number, -1, 0) == pixel(number, 4, 11) == [255, 255, 255]
    assert pixel(1, 0, 3) == [0, 0, 0]
    assert pixel(1, 11, 0) == [127, 127, 127]
    assert places[2].top - places[0].top == pytest.approx(1.5)
    assert places[1].left > 2.0 > places[0].left + 12 * places[0].scale
