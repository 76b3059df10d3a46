"""Pictures in a zip, read one at a time without unpacking it: `class/0001.jpg`, or `any/class/0001.jpg`.

Nothing is written, so an entry can do harm by its size alone; names that leave the archive are refused all
the same, since whoever made them meant no good.
"""

from __future__ import annotations

import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from recaster.core.errors import DataError
from recaster.data.picture_files import SUFFIXES, PictureFile, from_bytes

_MOST_BYTES = 64 << 20
"""Of one unpacked picture file."""
_MOST_RATIO, _SMALL_BYTES = 200, 1 << 26
"""Of all entries together to the archive: pictures are packed already, and grey bitmaps reach about 100."""
_ENCRYPTED = 0x1


def list_zip(path: Path) -> list[PictureFile]:
    """The pictures in the zip at `path` in the order of their names; their folder is the label.

    Folders that hold everything (`faces/` in `faces/anna/1.png`) are passed over.

    Raises:
        DataError: not a zip, damaged, unsafe, or a bomb.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(
            "The zip cannot be opened.", where=str(path), value=str(error), repair="bring a whole copy of it"
        ) from error
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    for entry in entries:
        _check_name(entry, path)
    _check_size(entries, path)
    pictures = {
        PurePosixPath(entry.filename): entry
        for entry in entries
        if PurePosixPath(entry.filename).suffix.lower() in SUFFIXES and not _is_hidden(entry.filename)
    }
    cut = _common_folders(list(pictures))
    reader = _Reader(archive)
    return [reader.describe(entry, name, cut) for name, entry in sorted(pictures.items())]


class _Reader:
    """Reads entries of an open archive, from several threads."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive, self._lock = archive, threading.Lock()

    def describe(self, entry: zipfile.ZipInfo, name: PurePosixPath, cut: int) -> PictureFile:
        """The picture of `entry`, its label after `cut` folders."""
        folders = name.parts[cut:-1]
        return PictureFile(
            id="/".join(name.parts[cut:]),
            label=folders[0] if folders else None,
            where=f"{self._archive.filename}, {name}",
            open=lambda: self._open(entry),
        )

    def _open(self, entry: zipfile.ZipInfo) -> BinaryIO:
        if entry.flag_bits & _ENCRYPTED:
            raise ValueError("it is encrypted")
        if entry.file_size > _MOST_BYTES:
            raise ValueError(f"{entry.file_size} bytes unpacked are more than {_MOST_BYTES}")
        try:
            with self._lock, self._archive.open(entry) as file:
                data = file.read(_MOST_BYTES + 1)  # the size in the archive's table may lie
        except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise ValueError(f"damaged in the zip: {error}") from error
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes unpacked")
        return from_bytes(data)


def _is_hidden(name: str) -> bool:
    """What operating systems leave beside pictures."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _common_folders(names: list[PurePosixPath]) -> int:
    """How many outer folders hold all pictures and leave at least one folder as their label."""
    cut = 0
    while names and min(len(name.parts) for name in names) > cut + 2:
        if len({name.parts[cut] for name in names}) > 1:
            break
        cut += 1
    return cut


def _check_name(entry: zipfile.ZipInfo, path: Path) -> None:
    name = entry.orig_filename  # zipfile cuts the other one at a NUL, and turns backslashes around
    leaves = name.startswith("/") or ".." in PurePosixPath(name).parts
    if leaves or "\\" in name or "\0" in name or ":" in name[:3]:
        raise DataError(
            "The zip has a path that leaves its folder.",
            where=str(path),
            value=repr(name),
            repair="do not use it, or pack it anew from a folder you trust",
        )


def _check_size(entries: list[zipfile.ZipInfo], path: Path) -> None:
    total, packed = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > max(_SMALL_BYTES, _MOST_RATIO * packed):
        raise DataError(
            "The zip is a bomb.",
            where=str(path),
            value=f"{packed} bytes unpack to {total}",
            repair="do not use it",
        )
