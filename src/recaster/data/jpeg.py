"""Plain JPEGs decoded by libjpeg-turbo alone: ten times as fast as by way of Pillow where they are small.

What is not plain (CMYK, turned by EXIF, damaged, huge) is left to Pillow, which says what is wrong with it.
Both have the same decoder, and `tests/unit/test_jpeg.py` holds them to the same pixels.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

_START = b"\xff\xd8\xff"
_ORIENTATION, _UPRIGHT = 0x0112, 1
_PLAIN = {"YCbCr", "Gray"}


def decode_plain(data: bytes, *, grey: bool, most_pixels: int) -> NDArray[np.uint8] | None:
    """The picture `(height, width, 3)`, or None where another must decode `data`.

    Args:
        grey: keep a grey picture's one channel, `(height, width, 1)`; else it gets three equal ones.
        most_pixels: a picture with more is not decoded.
    """
    import simplejpeg

    if not data.startswith(_START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in _PLAIN or height * width > most_pixels or not _is_upright(data):
            return None
        wanted = "GRAY" if grey and colours == "Gray" else "RGB"
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, wanted, strict=True)
    except ValueError:  # damaged, or of a kind that turbojpeg does not know
        return None
    return pixels


def _is_upright(data: bytes) -> bool:
    if b"Exif\0\0" not in data:
        return True
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
            return bool(opened.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
