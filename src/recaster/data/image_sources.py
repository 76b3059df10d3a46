"""Labelled pictures as their owners keep them, one at a time, bad ones included.

{"id": "a7", "label": "3", "image": [[0, 5, 13], [0, 1, 9]]}     a line of a JSON lines file
id,label,p0,p1,p2 …                                              the header of a CSV file
path,label,left_eye_x …                                          one that names picture files beside it
image, label                                                     a Parquet file, see `data.picture_parquet`
cifar-10-binary.tar.gz                                           see `data.picture_archive`
faces/anna/0001.png                         a picture, an image folder, or a zip of one: label/name
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import DataError
from recaster.data.labels import to_text
from recaster.data.picture_archive import SUFFIXES as ARCHIVES
from recaster.data.picture_archive import read_archive
from recaster.data.picture_files import SUFFIXES, decode_files, list_folder, one_file
from recaster.data.picture_list import names_files, read_listed
from recaster.data.picture_parquet import SUFFIX as PARQUET
from recaster.data.picture_parquet import read_parquet
from recaster.data.picture_zip import list_zip
from recaster.data.records import RawRecord
from recaster.data.subset import choose_rows, thin
from recaster.recipe.data import ImageShape, Subset


def read_images(
    path: Path, image: ImageShape, subset: Subset | None, *, parts: Sequence[str] = ()
) -> Iterator[RawRecord] | None:
    """The pictures at `path` in a fixed order, or those of `subset`; None when it is of no known kind.

    Args:
        parts: of an archive, the files in it that are taken.

    Raises:
        DataError: a zip or an archive that cannot be used, a table without its columns.
    """
    files = list_folder(path) if path.is_dir() else list_zip(path) if path.suffix == ".zip" else None
    if path.suffix.lower() in SUFFIXES and path.is_file():
        files = [one_file(path)]
    if files is not None:
        if subset:  # chosen by name, so that the others need not be decoded
            chosen = choose_rows([(file.id, file.label) for file in files], subset)
            files = [file for row, file in enumerate(files) if row in chosen]
        return decode_files(files, image)
    if (read := _find_reader(path, image, parts)) is None:
        return None
    return thin(read, subset) if subset else read()


def _find_reader(
    path: Path, image: ImageShape, parts: Sequence[str]
) -> Callable[[], Iterator[RawRecord]] | None:
    if path.name.endswith(ARCHIVES):
        return partial(read_archive, path, parts=parts)
    if names_files(path):
        return partial(read_listed, path, image)
    return {
        ".jsonl": partial(_read_json_lines, path),
        ".csv": partial(_read_csv, path, image),
        PARQUET: partial(read_parquet, path, image),
    }.get(path.suffix)


def digits_file() -> Path:
    """scikit-learn's own copy of the data, found without importing scikit-learn (a second of CPU)."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("scikit-learn is not installed.", repair="pip install scikit-learn")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"


def read_digits() -> Iterator[RawRecord]:
    """scikit-learn's 1,797 handwritten digits."""
    # The file that `sklearn.datasets.load_digits` reads, in its order: 64 pixels (0 to 16), then the label.
    with gzip.open(digits_file(), "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    for number, row in enumerate(rows):
        yield RawRecord(
            id=f"digit-{number:04d}",
            label=str(int(row[-1])),
            where=f"load_digits, row {number}",
            pixels=row[:-1].reshape(8, 8, 1),
        )


def _read_json_lines(path: Path) -> Iterator[RawRecord]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parse_json_line(line, f"{path}, line {number}")


def _parse_json_line(line: str, where: str) -> RawRecord:
    try:
        row = json.loads(line)
    except ValueError as error:
        return RawRecord(id=None, label=None, where=where, pixels=None, problem=f"not JSON: {error}")
    if not isinstance(row, dict):
        return RawRecord(id=None, label=None, where=where, pixels=None, problem="not a JSON object")
    pixels, problem = _to_pixels(row.get("image"))
    return RawRecord(
        id=None if row.get("id") is None else str(row["id"]),
        label=to_text(row.get("label")),
        where=where,
        pixels=pixels,
        group=str(row.get("group") or ""),
        problem=problem,
    )


def _to_pixels(image: Any) -> tuple[NDArray[np.float32] | None, str]:
    try:
        pixels = np.asarray(image, dtype=np.float32)
    except (TypeError, ValueError) as error:
        return None, f"image is not a rectangle of numbers: {error}"
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        return None, f"image has shape {pixels.shape}, wanted height x width or height x width x channels"
    return pixels, ""


def _read_csv(path: Path, image: ImageShape) -> Iterator[RawRecord]:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if not {"id", "label"} <= set(columns):
            raise DataError(
                "The CSV file lacks the columns id and label.",
                where=f"{path}, line 1",
                value=", ".join(columns) or "(empty)",
                repair="begin with a header such as id,label,p0,p1,…",
            )
        pixel_columns = [name for name in columns if name not in {"id", "label", "group"}]
        for row in reader:
            values = np.array([_number(row[name]) for name in pixel_columns], dtype=np.float32)
            shape = (image.height, image.width, image.channels)
            # A row of another length keeps its own shape, for the contract to refuse.
            fits = len(values) == math.prod(shape)
            yield RawRecord(
                id=row["id"] or None,
                label=row["label"] or None,
                where=f"{path}, line {reader.line_num}",
                pixels=values.reshape(shape if fits else (1, len(values), 1)),
                group=row.get("group") or "",
            )


def _number(text: str | None) -> float:
    """The number, or NaN: the contract then names the row."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
