"""Pictures in a grid: each in its cell, upright, its sides in their ratio, and where `add` says it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recaster.data.shards import Shard
from recaster.evaluation.detection_report import plot_boxes
from recaster.evaluation.face_metrics import arrange
from recaster.evaluation.face_plots import plot_retrieved
from recaster.evaluation.picture_grid import PictureGrid

_DPI = 100


def test_pictures_are_where_add_says(tmp_path: Path) -> None:
    grid = PictureGrid(columns=2, rows=2, cell=(2.0, 1.5), title="a title")
    wide, tall = np.zeros((4, 12, 3), dtype=np.float32), np.zeros((12, 4, 1), dtype=np.float32)
    wide[0, 0], wide[3, 11] = (1, 0, 0), (0, 0, 1)  # upper left red, lower right blue
    tall[11] = 0.5
    places = [grid.add(wide, "one"), grid.add(tall, colour="red"), grid.add(wide)]
    grid.add(tall)
    with pytest.raises(ValueError, match="4 cells"):
        grid.add(tall)
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


def test_a_box_around_a_whole_picture_is_drawn_at_its_edges(tmp_path: Path) -> None:
    nothing = np.full((1, 1, 6), -1.0)
    grey = np.full((1, 8, 8, 1), 0.5, dtype=np.float32)
    whole = np.array([[[0.0, 0.0, 0.0, 8.0, 8.0]]])  # label, then left, top, right, bottom
    plot_boxes(nothing, whole, labels=["a"], load=lambda _: grey, path=tmp_path / "boxes.png")
    drawn = np.asarray(Image.open(tmp_path / "boxes.png").convert("RGB")).astype(int)
    red = np.argwhere((drawn[..., 0] - drawn[..., 1]) > 60)
    same = (drawn == 127).all(2)
    picture = np.argwhere(
        same & (same.sum(1) > 100)[:, None]
    )  # a letter of the title has a pixel of this grey
    assert np.abs(red.min(0) - picture.min(0)).max() <= 2
    assert np.abs(red.max(0) - picture.max(0)).max() <= 2


def test_few_faces_stay_in_their_lines(tmp_path: Path) -> None:
    """With fewer others than columns each line is as long as there are pictures."""
    pictures = np.zeros((3, 1, 6, 6), dtype=np.float32)
    pictures[[0, 1, 2], 0, :, :] = np.array([60, 120, 180], dtype=np.float32)[:, None, None]
    shard = Shard(images=pictures, labels=np.array([0, 0, 1]), ids=["a", "b", "c"], maximum=255.0)
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    predictions, targets = arrange(vectors, shard.labels, 0.5)
    plot_retrieved(predictions, targets, shard, tmp_path / "faces.png")
    drawn = np.asarray(Image.open(tmp_path / "faces.png").convert("RGB"))
    assert drawn.shape[1] == round(3 * 1.4 * 110)  # the one that is asked for, and two others
    left = drawn[:, drawn.shape[1] // 6, 0]  # the middle of the first column: each line asks for another
    assert [grey for grey in (60, 120, 180) if (left == grey).sum() > 50] == [60, 120, 180]
