"""One record as its source has it, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.float32]
"""`(height, width, channels)` in the source's own range; of 8 bits where that holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecord:
    """A picture, a text or a conversation, good or bad."""

    id: str | None
    label: str | None
    where: str
    """File and row, for messages."""
    pixels: Pixels | None = None
    """Of a picture; None when it could not be read."""
    text: str | None = None
    """Of a text; of a conversation the JSON list of its messages. None when it could not be read."""
    group: str = ""
    """By which records are told apart in slices, such as their source; empty where none is named."""
    problem: str = ""
    """Why it could not be read."""
    shown: tuple[int, int] | None = None
    """Height and width of a picture with boxes before it was resized, pixels."""
    split: str = ""
    """The published split it belongs to; empty for those that are divided here."""
