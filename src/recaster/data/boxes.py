"""Boxes of one picture, whatever file they came from.

[{"label": "RBC", "box": [78.0, 336.0, 184.0, 435.0]}]     left, top, right, bottom in the picture's pixels
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One thing in a picture."""

    label: str
    sides: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels, from the picture's upper left corner."""


def dump_boxes(boxes: Sequence[Box]) -> str:
    """As JSON."""
    return json.dumps([{"label": box.label, "box": list(box.sides)} for box in boxes], ensure_ascii=False)


def parse_boxes(text: str) -> list[Box]:
    """What `dump_boxes` wrote, or people did.

    Raises:
        ValueError: it is not of that form.
    """
    told: Any = json.loads(text)
    if not isinstance(told, list):
        raise ValueError("boxes are not a list")
    return [_parse(entry) for entry in told]


def _parse(entry: Any) -> Box:
    if not isinstance(entry, dict) or not isinstance(entry.get("box"), list) or "label" not in entry:
        raise ValueError(f'a box is not of the form {{"label": …, "box": […]}}: {str(entry)[:80]}')
    return Box(label=str(entry["label"]), sides=read_sides(entry["box"]))


def read_sides(values: Sequence[Any]) -> tuple[float, float, float, float]:
    """Four finite numbers.

    Raises:
        ValueError: they are not.
    """
    if len(values) != 4:
        raise ValueError(f"a box has {len(values)} numbers, wanted 4")
    try:
        left, top, right, bottom = (float(value) for value in values)
    except TypeError as error:
        raise ValueError(f"a box has a side that is no number: {list(values)}") from error
    if not all(math.isfinite(value) for value in (left, top, right, bottom)):
        raise ValueError(f"a box has a side that is not finite: {list(values)}")
    return left, top, right, bottom


def find_fault(boxes: Sequence[Box], *, height: int, width: int, slack: float = 1.0) -> str:
    """Why `boxes` cannot be those of a picture of this size; empty when they can.

    Args:
        slack: pixels that a box may reach beyond the picture: tools count its edges differently.
    """
    for box in boxes:
        left, top, right, bottom = box.sides
        if right <= left or bottom <= top:
            return f"box {_show(box)} has no area"
        outside = left < -slack or top < -slack or right > width + slack or bottom > height + slack
        if outside:
            return f"box {_show(box)} reaches out of the picture of {width} x {height} pixels"
    return ""


def _show(box: Box) -> str:
    return f"{box.label} {[round(side, 1) for side in box.sides]}"


def fit_boxes(
    boxes: Sequence[Box], *, before: tuple[int, int], after: tuple[int, int], resize: str
) -> list[Box]:
    """Where the boxes are once their picture is resized as `picture_files.decode` does it.

    Args:
        before: height and width.
        after: likewise.
        resize: `stretch` or `pad`; for pictures of the wanted size it does not matter.
    """
    (down, right), (shift_down, shift_right) = _find_placement(before, after, resize)
    fitted = []
    for box in boxes:
        x0, y0, x1, y1 = box.sides
        sides = _within(
            (
                x0 * right + shift_right,
                y0 * down + shift_down,
                x1 * right + shift_right,
                y1 * down + shift_down,
            ),
            after,
        )
        fitted.append(Box(label=box.label, sides=sides))
    return fitted


def unfit_sides(
    sides: tuple[float, float, float, float], *, before: tuple[int, int], after: tuple[int, int], resize: str
) -> tuple[float, float, float, float]:
    """Where a box of the resized picture lies in the picture as it was; the way back of `fit_boxes`."""
    (down, right), (shift_down, shift_right) = _find_placement(before, after, resize)
    x0, y0, x1, y1 = sides
    back = (
        (x0 - shift_right) / right,
        (y0 - shift_down) / down,
        (x1 - shift_right) / right,
        (y1 - shift_down) / down,
    )
    return _within(back, before)


def _find_placement(
    before: tuple[int, int], after: tuple[int, int], resize: str
) -> tuple[tuple[float, float], tuple[int, int]]:
    """By what a picture's height and width grow, and by how many pixels it moves down and to the right."""
    down, right = after[0] / before[0], after[1] / before[1]
    if resize != "pad":
        return (down, right), (0, 0)
    scale = min(down, right)
    # Pillow rounds the picture's sides to whole pixels, and puts it in the middle.
    tall, wide = round(before[0] * scale), round(before[1] * scale)
    moved = round((after[0] - tall) / 2), round((after[1] - wide) / 2)
    return (tall / before[0], wide / before[1]), moved


def _within(
    sides: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    height, width = size
    left, top, right, bottom = sides
    return (
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(right, 0.0), width),
        min(max(bottom, 0.0), height),
    )
