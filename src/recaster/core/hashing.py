"""Content hashes and canonical JSON: one value, one text, one fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def hash_value(value: Any) -> str:
    """sha256 (hex) of `value`'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_directory(path: Path, *, leave_out: Iterable[str] = ()) -> str:
    """sha256 (hex) over the relative names and contents of all files below `path`."""
    skipped = set(leave_out)
    names = sorted(
        file.relative_to(path).as_posix()
        for file in path.rglob("*")
        if file.is_file() and file.name not in skipped
    )
    return hash_value([[name, hash_file(path / name)] for name in names])


@cache
def hash_sources(*modules: str) -> str:
    """sha256 (hex) over the source text of packages or modules of `recaster`, named with dots.

    This is the 'code version' in a step's fingerprint: editing a step's code makes it run again.
    """
    root = Path(__file__).parent.parent
    files: set[Path] = set()
    for module in modules:
        place = root.joinpath(*module.split("."))
        files.update(place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")])
    return hash_value([[file.relative_to(root).as_posix(), hash_file(file)] for file in sorted(files)])
