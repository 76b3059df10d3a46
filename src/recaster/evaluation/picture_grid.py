"""Pictures in rows and columns of one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_GAP, _LINE = 0.08, 0.15
"""Inches between two cells, and of a line of text."""


class Place(NamedTuple):
    """Where a picture begins, in inches from the upper left, and the length of its pixels' sides."""

    left: float
    top: float
    scale: float


class PictureGrid:
    """Cells that are filled line by line; a picture keeps the ratio of its sides.

    All pictures are in one pair of axes, whose unit is the inch: a pair for each takes five times as long.
    """

    def __init__(
        self, *, columns: int, rows: int, cell: tuple[float, float], title: str = "", lines: int = 1
    ) -> None:
        """An empty grid.

        Args:
            cell: width and height of a cell in inches, with the text above its picture.
            lines: of this text.
        """
        from matplotlib.figure import Figure

        self._columns, self._cell, self._filled = columns, cell, 0
        self._cells = columns * rows
        self._text = lines * _LINE
        self._head = 2.5 * _LINE if title else _GAP
        width, height = columns * cell[0], rows * cell[1] + self._head
        self._figure = Figure(figsize=(width, height))
        self.axes: Any = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))
        if title:
            self.axes.text(width / 2, 1.5 * _LINE, title, ha="center", fontsize=12)
        self._limits = {"xlim": (0, width), "ylim": (height, 0)}
        self.axes.axis("off")

    def add(self, picture: NDArray[np.float32], text: str = "", *, colour: str = "black") -> Place:
        """Fill the next cell with `picture` `(height, width, 1 or 3)` in 0..1, `text` above it.

        Raises:
            ValueError: all cells are filled.
        """
        if self._filled == self._cells:
            raise ValueError(f"the grid has {self._cells} cells, and all are filled")
        line, column = divmod(self._filled, self._columns)
        self._filled += 1
        left, top = column * self._cell[0], self._head + line * self._cell[1]
        height, width = picture.shape[:2]
        wide, tall = self._cell[0] - _GAP, self._cell[1] - _GAP - self._text
        scale = min(wide / width, tall / height)
        place = Place(
            left + (self._cell[0] - scale * width) / 2, top + self._text + (tall - scale * height) / 2, scale
        )
        self.axes.imshow(
            np.repeat(picture, 3 // picture.shape[2], axis=2),
            extent=(place.left, place.left + scale * width, place.top + scale * height, place.top),
            vmin=0,
            vmax=1,
        )
        if text:
            self.axes.text(
                left + self._cell[0] / 2, place.top - _LINE / 3, text, ha="center", fontsize=8, color=colour
            )
        return place

    def save(self, path: Path, *, dpi: int = 110) -> None:
        """Write the figure as `path` says."""
        self.axes.set(**self._limits, aspect="equal")  # each picture has set them to its own
        self._figure.savefig(path, dpi=dpi)
