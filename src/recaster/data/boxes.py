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
    down, right = after[0] / before[0], after[1] / before[1]
    shift_down = shift_right = 0.0
    if resize == "pad":
        scale = min(down, right)
        # Pillow rounds the picture's sides to whole pixels, and puts it in the middle.
        tall, wide = round(before[0] * scale), round(before[1] * scale)
        shift_down, shift_right = round((after[0] - tall) / 2), round((after[1] - wide) / 2)
        down, right = tall / before[0], wide / before[1]
    fitted = []
    for box in boxes:
        x0, y0, x1, y1 = box.sides
        sides = (
            min(max(x0 * right + shift_right, 0.0), after[1]),
            min(max(y0 * down + shift_down, 0.0), after[0]),
            min(max(x1 * right + shift_right, 0.0), after[1]),
            min(max(y1 * down + shift_down, 0.0), after[0]),
        )
        fitted.append(Box(label=box.label, sides=sides))
    return fitted
