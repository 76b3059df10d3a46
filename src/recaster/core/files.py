"""Files that are either whole or not there: write to a temporary name, fsync, rename."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recaster.core.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn 'disk full' and 'read-only' under `path` into a StorageError with its repair."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or _is_short_write(error):
            raise disk_full(Path(error.filename or path)) from error
        if error.errno in _REFUSED:
            raise StorageError(
                "This folder cannot be written.",
                where=str(error.filename or path),
                value=error.strerror,
                repair="make it writable, or set RECASTER_HOME to a folder that is",
            ) from error
        raise


def _is_short_write(error: OSError) -> bool:
    """numpy reports a full disk as counts of items, without an error number."""
    return error.errno is None and re.search(r"\d+ requested and \d+ written", str(error)) is not None


def disk_full(path: Path) -> StorageError:
    """The error for a file system with no room for `path`."""
    return StorageError(
        "The disk is full; what was finished before is kept.",
        where=str(path),
        value=f"{free_bytes(path) / 2**20:.1f} MiB free",
        repair="free some space, or set RECASTER_HOME to a folder on a larger disk, and run again",
    )


def free_bytes(path: Path) -> int:
    """Free bytes of the file system that holds `path` (or its nearest existing parent)."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, atomically and durably."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` with `value` as JSON, atomically and durably."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read the JSON file at `path`."""
    return json.loads(path.read_bytes())


def sync_directory(path: Path) -> None:
    """Make renames inside the directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def commit_directory(work: Path, final: Path) -> None:
    """Rename the finished directory `work` to `final`, after its content reached the disk."""
    for path in sorted(work.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    final.parent.mkdir(parents=True, exist_ok=True)
    work.replace(final)
    sync_directory(final.parent)


def mirror_directory(source: Path, target: Path, *, leave_out: Iterable[str] = ()) -> None:
    """Make `target` hold the same files as `source`: hard links where possible, else copies.

    Files of `target` that `source` lacks are removed. Each file is replaced whole.

    Args:
        leave_out: file names that are not mirrored.
    """
    skipped = set(leave_out)
    with storage_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        wanted = {
            path.relative_to(source)
            for path in source.rglob("*")
            if path.is_file() and path.name not in skipped
        }
        for path in sorted(target.rglob("*"), reverse=True):
            if path.is_file() and path.relative_to(target) not in wanted:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        for name in sorted(wanted):
            _mirror_file(source / name, target / name)


def _mirror_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(source):
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, temporary)
    temporary.replace(target)
