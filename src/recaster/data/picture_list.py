"""A CSV or Parquet file that names picture files beside it, with labels; of faces, five points and a group.

path,label,group,left_eye_x,left_eye_y,right_eye_x,right_eye_y,nose_x,nose_y,left_mouth_x, …
photos/a.jpg,anna,indoors,38,52,74,52,56,72,42,92,71,92
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import DataError
from recaster.core.hashing import hash_file, hash_value
from recaster.data.face_alignment import POINTS
from recaster.data.labels import to_text
from recaster.data.picture_files import PictureFile, decode_files
from recaster.data.picture_parquet import SUFFIX, read_rows, read_schema
from recaster.data.records import RawRecord
from recaster.recipe.data import ImageShape

_COORDINATES = tuple(f"{point}_{axis}" for point in POINTS for axis in "xy")


def names_files(path: Path) -> bool:
    """Whether `path` is a CSV or Parquet file with a column `path`."""
    if path.suffix == SUFFIX:
        return "path" in read_schema(path).names
    if path.suffix != ".csv":
        return False
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return "path" in next(csv.reader(file), [])


def hash_listed(path: Path) -> str:
    """sha256 (hex) of the list and of the pictures that it names and that are there."""
    files = sorted({row["path"] or "" for row in _rows(path)})
    found = [path.parent / name for name in files if _stays_inside(name)]
    return hash_value([hash_file(path), *(hash_file(one) for one in found if one.is_file())])


def read_listed(path: Path, image: ImageShape) -> Iterator[RawRecord]:
    """The pictures in the order of the list; of one without an `id` the path is the id.

    Raises:
        DataError: the header has some of the five points' columns, and not all.
    """
    return decode_files(_describe(path), image)


def _describe(path: Path) -> Iterator[PictureFile]:
    place, first = ("row", 0) if path.suffix == SUFFIX else ("line", 2)
    for number, row in enumerate(_rows(path), start=first):
        name = row["path"] or ""
        yield PictureFile(
            id=row.get("id") or name,
            label=row.get("label") or row.get("identity") or None,
            where=f"{path}, {place} {number}: {name or '(no path)'}",
            open=partial(_open, path.parent, name),
            group=row.get("group") or "",
            landmarks=_landmarks(row),
        )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.suffix == SUFFIX:
        _check_points(read_schema(path).names, str(path))
        for row in read_rows(path):
            yield {name: to_text(value) or "" for name, value in row.items()}
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        _check_points(reader.fieldnames or [], f"{path}, line 1")
        yield from reader


def _check_points(columns: Sequence[str], where: str) -> None:
    present = [name for name in _COORDINATES if name in columns]
    if present and len(present) < len(_COORDINATES):
        raise DataError(
            "The file has some of a face's five points, and not all.",
            where=where,
            value=f"missing: {', '.join(name for name in _COORDINATES if name not in present)}",
            repair="add these columns, or remove the others",
        )


def _landmarks(row: dict[str, str]) -> NDArray[np.float64] | None:
    """`(5, 2)`; None for a face without. What is no number is NaN, which lies in no picture."""
    told = [row.get(name) or "" for name in _COORDINATES]
    if not any(told):
        return None
    return np.array([_number(text) for text in told]).reshape(len(POINTS), 2)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


def _open(folder: Path, name: str) -> BinaryIO:
    if not _stays_inside(name):
        raise ValueError(f"the path {name!r} does not stay beside the list")
    return (folder / name).open("rb")
