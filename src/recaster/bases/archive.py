"""Unpacking a zip that somebody else made: only plain files, only below the target, only so many bytes.

The bounds: an entry that unpacks to more than 200 times its packed size (deflate's own limit is 1032;
weights reach 1.3, JSON and text about 20), or an archive that unpacks to more than 64 GiB, is a bomb.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from recaster.core.errors import BaseModelError, RecipeError, StorageError
from recaster.core.files import free_bytes

_MAX_RATIO = 200
_SMALL_BYTES = 1 << 20  # below this a high ratio does no harm
_MAX_BYTES = 64 << 30
_CHUNK = 1 << 20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1


def unpack(archive: Path, inner: str, folder: Path, *, choose: Callable[[list[str]], list[str]]) -> list[str]:
    """Write the file `inner`, or what `choose` takes below the folder `inner`, of `archive` into `folder`.

    Nothing is executed, and nothing is written when any entry of the archive is unsafe.

    Args:
        choose: from the names below `inner`, relative to it; a single file keeps its own name.

    Returns:
        The chosen names, now relative to `folder`.

    Raises:
        BaseModelError: not a zip, damaged, unsafe, or a bomb.
        RecipeError: there is no `inner` in it.
        StorageError: the disk does not hold it.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            for entry in entries:
                _check_entry(entry, archive)
            found = _find(entries, inner, archive)
            chosen = {name: found[name] for name in choose(list(found))}
            _check_size(chosen, archive, folder)
            for name, entry in chosen.items():
                _extract(opened, entry, folder / name, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _refuse("The archive is damaged.", archive, error) from error
    return sorted(chosen)


def _check_entry(entry: zipfile.ZipInfo, archive: Path) -> None:
    # `orig_filename`: zipfile itself cuts names at a NUL and turns backslashes around on some systems.
    name = entry.orig_filename
    mode = entry.external_attr >> 16
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in name[:3]:
        raise _refuse("The archive has a path that leaves its folder.", archive, repr(name))
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refuse("The archive has a link or a special file.", archive, repr(name))
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
        raise _refuse("The archive has an entry that is encrypted or packed unusually.", archive, repr(name))


def _find(entries: Iterable[zipfile.ZipInfo], inner: str, archive: Path) -> dict[str, zipfile.ZipInfo]:
    files = [entry for entry in entries if not entry.is_dir()]
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in files:
        name = PurePosixPath(entry.filename)
        if name.as_posix() == inner:
            relative = name.name
        elif PurePosixPath(inner) in name.parents:
            relative = name.relative_to(inner).as_posix()
        else:
            continue
        if relative in found:
            raise _refuse("The archive has two entries of one name.", archive, repr(entry.filename))
        found[relative] = entry
    if not found:
        largest = sorted(files, key=lambda entry: entry.file_size, reverse=True)[:5]
        raise RecipeError(
            "The archive has no such file or folder.",
            where=str(archive),
            value=inner,
            repair=f"its largest files are: {', '.join(entry.filename for entry in largest) or 'none'}",
        )
    return found


def _check_size(chosen: dict[str, zipfile.ZipInfo], archive: Path, folder: Path) -> None:
    total = sum(entry.file_size for entry in chosen.values())
    packed = archive.stat().st_size
    for name, entry in chosen.items():
        if entry.file_size > max(_SMALL_BYTES, _MAX_RATIO * entry.compress_size):
            raise _refuse(
                "The archive is a bomb.", archive, _sizes(name, entry.file_size, entry.compress_size)
            )
    # Entries may overlap, so that each looks innocent: the sum counts too.
    if total > _MAX_BYTES or total > max(_SMALL_BYTES, _MAX_RATIO * packed):
        raise _refuse("The archive is a bomb.", archive, _sizes("all", total, packed))
    if total > (free := free_bytes(folder)):
        raise StorageError(
            "The disk does not hold the unpacked model.",
            where=str(folder),
            value=f"{total / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free",
            repair="free some space, or set RECASTER_HOME to a folder on a larger disk",
        )


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, archive: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(entry) as source, target.open("wb") as file:
        # Sizes in the archive's table may lie: count what really comes out.
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > entry.file_size:
                raise _refuse("The archive holds more than it declares.", archive, repr(entry.filename))
            file.write(chunk)
    if written != entry.file_size:
        raise _refuse("The archive holds less than it declares.", archive, repr(entry.filename))


def _sizes(name: str, unpacked: int, packed: int) -> str:
    return f"{name}: {packed} bytes unpack to {unpacked}"


def _refuse(what: str, archive: Path, value: object) -> BaseModelError:
    return BaseModelError(
        what, where=str(archive), value=value, repair="do not use it; take the model from a source you trust"
    )
