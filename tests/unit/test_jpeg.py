"""JPEGs that are decoded without Pillow have Pillow's pixels; the others are left to it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recaster.data.jpeg import decode_plain
from recaster.data.picture_files import decode_sized
from recaster.recipe.data import ImageShape

_MOST = 1 << 20


def _jpeg(size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    random = np.random.default_rng(size[0])
    down, right = np.mgrid[: size[1], : size[0]]
    colours = np.stack([3 * down + right, 2 * right, down + 40], 2) + random.normal(0, 15, (*size[::-1], 3))
    file = io.BytesIO()
    Image.fromarray(colours.clip(0, 255).astype(np.uint8)).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (33, 17), (200, 131)])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95},
        {"quality": 30, "subsampling": 2},
        {"quality": 80, "subsampling": 1},
        {"quality": 75, "subsampling": 0, "progressive": True},
        {"quality": 85, "optimize": True, "restart_marker_blocks": 2},
        {"quality": 85, "exif": bytes.fromhex("45786966000049492a0008000000000000000000")},
    ],
    ids=lambda options: "-".join(f"{key}-{str(value)[:8]}" for key, value in options.items()),
)
def test_pixels_are_pillow_s(size: tuple[int, int], options: dict[str, Any]) -> None:
    data = _jpeg(size, **options)
    found = decode_plain(data, grey=False, most_pixels=_MOST)
    assert found is not None
    np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(data))))


def test_grey_stays_grey_or_gets_three_channels() -> None:
    data = _jpeg((30, 21), "L")
    wanted = np.asarray(Image.open(io.BytesIO(data)))
    one, three = (decode_plain(data, grey=grey, most_pixels=_MOST) for grey in (True, False))
    assert one is not None and three is not None
    np.testing.assert_array_equal(one, wanted[:, :, None])
    np.testing.assert_array_equal(three, np.repeat(wanted[:, :, None], 3, 2))
    coloured = decode_plain(_jpeg((30, 21)), grey=True, most_pixels=_MOST)
    assert coloured is not None and coloured.shape == (21, 30, 3)  # colour is not dropped


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _jpeg((30, 21), exif=exif.tobytes())


_NOT_PLAIN = {
    "another format": b"\x89PNG\r\n\x1a\n",
    "nothing": b"",
    "cut": _jpeg((64, 64))[:-300],
    "a start alone": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "CMYK": _jpeg((30, 21), "CMYK"),
    "turned": _turned(),
    "huge": _jpeg((1200, 900)),
}


@pytest.mark.parametrize("name", _NOT_PLAIN)
def test_what_is_not_plain_is_left_to_pillow(name: str) -> None:
    assert decode_plain(_NOT_PLAIN[name], grey=False, most_pixels=_MOST) is None


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("L", 3)])
def test_sizes_are_those_of_a_picture_without_loss(resize: str, mode: str, channels: int) -> None:
    """The same pixels as a PNG, which Pillow decodes, go through the same resizing."""
    shape = ImageShape(height=16, width=24, channels=channels, minimum=0.0, maximum=255.0, resize=resize)  # type: ignore[arg-type]
    data, png = _jpeg((50, 37), mode), io.BytesIO()
    Image.open(io.BytesIO(data)).save(png, "PNG")
    png.seek(0)
    (one, shown), (other, same) = decode_sized(io.BytesIO(data), shape), decode_sized(png, shape)
    np.testing.assert_array_equal(one, other)
    assert shown == same == (37, 50) and one.shape == (16, 24, channels)
