"""Pictures in a Parquet file, as data sets on hubs have them, or as a snapshot packed them.

image {bytes, path}, label 3         picture files; the names of classes stand in the file's metadata
id, label, pixels, height, …         records.parquet of a snapshot, its rows as they are, good and bad
path, label, …                       names files beside it: see `data.picture_list`

Source of the first form: the features Image and ClassLabel of Hugging Face `datasets`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from recaster.core.errors import DataError
from recaster.data.labels import to_text
from recaster.data.packed import unpack_pixels
from recaster.data.picture_files import PictureFile, decode_files
from recaster.data.records import RawRecord
from recaster.recipe.data import ImageShape

SUFFIX = ".parquet"
_IMAGES, _LABELS = ("image", "img"), ("label", "fine_label", "labels")
"""Columns that hold them, the first that is there."""
_PACKED = frozenset(
    {"id", "label", "pixels", "pixel_type", "height", "width", "channels", "problem", "split"}
)
_ROWS = 256


def read_parquet(path: Path, image: ImageShape) -> Iterator[RawRecord]:
    """The pictures of the file in its order.

    Raises:
        DataError: it is no Parquet file, or has no pictures.
    """
    schema = read_schema(path)
    if set(schema.names) >= _PACKED:
        return _read_packed(path)
    column = next((name for name in _IMAGES if name in schema.names), None)
    if column is None:
        raise DataError(
            "The Parquet file has no pictures.",
            where=str(path),
            value=f"columns {', '.join(schema.names)}",
            repair="name their column `image` (bytes of picture files), or `path` (files beside it)",
        )
    return decode_files(_describe(path, column, schema), image)


def read_schema(path: Path) -> pa.Schema:
    """Columns, types and metadata of the file at `path`.

    Raises:
        DataError: it is no Parquet file.
    """
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "The Parquet file cannot be read.",
            where=str(path),
            value=str(error),
            repair="bring a whole copy of it",
        ) from error


def read_rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of the file, a few at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
            yield from batch.to_pylist()


def _describe(path: Path, column: str, schema: pa.Schema) -> Iterator[PictureFile]:
    label = next((name for name in _LABELS if name in schema.names), None)
    others = [name for name in (label, "id", "group") if name and name in schema.names]
    names = _class_names(schema, label)
    for number, row in enumerate(read_rows(path, [column, *others])):
        found = row.get(label) if label else None
        yield PictureFile(
            id=to_text(row.get("id")) or f"{path.stem}:{number:06d}",
            label=names(found),
            where=f"{path}, row {number}",
            open=partial(_open, row[column]),
            group=to_text(row.get("group")) or "",
        )


def _class_names(schema: pa.Schema, column: str | None) -> Callable[[Any], str | None]:
    """From a row's label to its name: numbers are looked up where the file tells what they stand for."""
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = told.get("info", {}).get("features", {}).get(column, {})
    # Of several labels the feature is a list, written as [{…}] or as {"feature": {…}}.
    feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
    if not (names := feature.get("names")):
        return to_text

    def name(value: Any) -> str | None:
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(number, int) and 0 <= number < len(names) for number in numbers):
            return None
        return to_text([names[number] for number in numbers])

    return name


def _open(value: Any) -> BinaryIO:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ValueError(f"the row has no bytes of a picture but {type(content).__name__}")
    return io.BytesIO(content)


def _read_packed(path: Path) -> Iterator[RawRecord]:
    for row in read_rows(path):
        yield RawRecord(
            id=row["id"],
            label=row["label"],
            where=row["where"] or str(path),
            split=row["split"] or "",
            pixels=unpack_pixels(row) if row["pixels"] is not None else None,
            group=row.get("group") or "",
            problem=row["problem"] or "",
        )
