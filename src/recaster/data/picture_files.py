"""Pictures in files: decoded within limits, several at a time, each with its reason when it cannot be.

A phone's photo is turned as its EXIF says, grey ones get three channels where the set has three, CMYK becomes
RGB. Animations, 16-bit pictures in an 8-bit set and decompression bombs are broken records.
"""

from __future__ import annotations

import io
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from recaster.data.face_alignment import align
from recaster.data.jpeg import decode_plain
from recaster.data.records import Pixels, RawRecord
from recaster.recipe.data import ImageShape

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".gif", ".webp"})
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "GIF", "WEBP")
"""What a file may be by its content, whatever its name; Pillow reads more, some of it by other programs."""
_MOST_PIXELS = 1 << 26
"""Of one picture before it is resized: 64 million decode to 192 MiB."""
_MOST_BYTES = 1 << 29
"""Of a file."""
_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_AT_ONCE, _AHEAD = 8, 8
"""Files a thread decodes in one go (handing over costs as much as a small picture), and such lots ahead."""
UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, struct.error)
"""What Pillow's readers raise for bytes that are not what they seem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFile:
    """A picture that was found and not read yet."""

    id: str
    label: str | None
    where: str
    open: Callable[[], BinaryIO]
    """Its bytes; what it raises becomes the record's problem."""
    group: str = ""
    """See `RawRecord.group`."""
    landmarks: NDArray[np.float64] | None = None
    """Five points of a face, by which it is aligned."""


def list_folder(path: Path) -> list[PictureFile]:
    """The pictures below `path` in the order of their names; the first folder is the label."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    return [_describe(file, path) for file in files]


def one_file(path: Path) -> PictureFile:
    """The picture at `path`, without a label."""
    return _describe(path, path.parent)


def _describe(file: Path, root: Path) -> PictureFile:
    name = file.relative_to(root)
    label = name.parts[0] if len(name.parts) > 1 else None
    return PictureFile(id=name.as_posix(), label=label, where=str(file), open=lambda: file.open("rb"))


def decode_files(files: Iterable[PictureFile], image: ImageShape) -> Iterator[RawRecord]:
    """Read `files`, a processor's worth at a time, in their order."""
    remaining = iter(files)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="decode") as pool:
        coming: deque[Future[list[RawRecord]]] = deque()
        while some := list(islice(remaining, _AT_ONCE)):
            coming.append(pool.submit(_read_all, some, image))
            if len(coming) >= _AHEAD:
                yield from coming.popleft().result()
        while coming:
            yield from coming.popleft().result()


def _read_all(files: list[PictureFile], image: ImageShape) -> list[RawRecord]:
    return [_read(file, image) for file in files]


def _read(file: PictureFile, image: ImageShape) -> RawRecord:
    pixels, problem = None, ""
    try:
        with file.open() as opened:
            if file.landmarks is None:
                pixels = decode(opened, image)
            else:
                whole = decode(opened, image.model_copy(update={"resize": "refuse"}))
                pixels = align(whole, file.landmarks, image)
    except UNREADABLE as error:
        problem = f"not a readable picture: {error or type(error).__name__}"
    return RawRecord(
        id=file.id,
        label=file.label,
        where=file.where,
        pixels=pixels,
        group=file.group,
        problem=problem,
    )


def decode(file: BinaryIO, image: ImageShape) -> Pixels:
    """The pixels of a picture file, in its own range, and in the recipe's size if that says so.

    Raises:
        ValueError, OSError: why it cannot be used.
    """
    return decode_sized(file, image)[0]


def decode_sized(file: BinaryIO, image: ImageShape) -> tuple[Pixels, tuple[int, int]]:
    """As `decode`, and the picture's height and width before it was resized, as it is shown.

    Raises:
        ValueError, OSError: why it cannot be used.
    """
    data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES >> 20} MiB are no file of one picture")
    pixels = decode_plain(data, grey=image.channels == 1, most_pixels=_MOST_PIXELS)
    if pixels is None:
        return _decode_any(data, image)
    shown = (pixels.shape[0], pixels.shape[1])
    return (pixels if image.resize == "refuse" else _fit_pixels(pixels, image)), shown


def _decode_any(data: bytes, image: ImageShape) -> tuple[Pixels, tuple[int, int]]:
    """By Pillow."""
    from PIL import Image, ImageOps

    try:
        opened = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    with opened:
        if opened.width * opened.height > _MOST_PIXELS:
            size = f"{opened.width} x {opened.height}"
            raise ValueError(
                f"{size} pixels are more than {_MOST_PIXELS}: a decompression bomb, or to be made smaller"
            )
        # A phone's JPEG with a second, smaller picture inside is no animation.
        if getattr(opened, "is_animated", False) and opened.format not in {"JPEG", "MPO"}:
            raise ValueError(f"an animation of {opened.n_frames} frames; keep one of them")  # type: ignore[attr-defined]
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
        picture: Image.Image = opened
        shown = (picture.height, picture.width)
        if picture.mode in _WIDE_MODES:
            return _wide_pixels(picture, image), shown
        if picture.mode != (mode := _mode(picture, image)):  # else it would only be copied
            picture = picture.convert(mode)
        if image.resize != "refuse":
            picture = _fit(picture, image)
        pixels = np.asarray(picture)
    return (pixels[:, :, None] if pixels.ndim == 2 else pixels), shown


def _mode(picture: Image.Image, image: ImageShape) -> str:
    """Grey stays grey but in a set of colour, where repeating it loses nothing; colour is never dropped."""
    grey = picture.mode in {"1", "L", "LA"}
    return "L" if grey and image.channels == 1 else "RGB"


def _wide_pixels(picture: Image.Image, image: ImageShape) -> Pixels:
    if image.maximum <= 255:
        raise ValueError(
            f"more than 8 bits a pixel (mode {picture.mode}); set data.image.maximum to what they reach, "
            "65535 say, or bring the picture to 8 bits"
        )
    if image.resize != "refuse":
        raise ValueError(
            f"more than 8 bits a pixel (mode {picture.mode}), which data.image.resize does not resize"
        )
    pixels: Any = np.asarray(picture, dtype=np.float32)[:, :, None]
    return np.repeat(pixels, image.channels, axis=2)


def _fit_pixels(pixels: NDArray[np.uint8], image: ImageShape) -> NDArray[np.uint8]:
    from PIL import Image

    fitted = np.asarray(_fit(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels), image))
    return fitted[:, :, None] if fitted.ndim == 2 else fitted


def _fit(picture: Image.Image, image: ImageShape) -> Image.Image:
    """`picture` in the recipe's size: stretched, cut to its middle, or with borders."""
    from PIL import Image, ImageOps

    size, filtering = (image.width, image.height), Image.Resampling.BILINEAR
    if picture.size == size:
        return picture
    if image.resize == "crop":
        return ImageOps.fit(picture, size, filtering)
    if image.resize == "pad":
        return ImageOps.pad(picture, size, filtering)
    return picture.resize(size, filtering)


def from_bytes(data: bytes) -> BinaryIO:
    """The bytes of a picture as a file."""
    return io.BytesIO(data)
