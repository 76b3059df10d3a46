"""A raw data set packed into one Parquet file, good and bad records alike.

    id          label  split  where     height width channels pixel_type pixels     text  group  problem
    digit-0000  0             digits, 0 8      8     1        uint8      00 00 05…

One file costs DVC a second where thousands of small ones cost most of a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recaster.data.records import Pixels, RawRecord

RECORDS = "records.parquet"
_ROWS_PER_GROUP = 4096
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("where", pa.string()),
        ("split", pa.string()),
        ("problem", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int32()),
        ("pixel_type", pa.string()),
        ("pixels", pa.large_binary()),
        ("text", pa.large_string()),
        ("group", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRecord:
    """A record that passed its contract."""

    id: str
    label: str
    """Empty for data without labels."""
    split: str
    """The published split, or empty."""
    pixels: Pixels
    """Of a picture, `(height, width, channels)`; empty for other kinds."""
    text: str
    """Of a text or a conversation."""
    group: str
    """By which it is told apart in slices, or empty."""


def write_packed(records: Iterable[RawRecord], folder: Path) -> int:
    """Write `records` to `folder` in their order; the same records give the same bytes.

    Returns:
        How many there were.
    """
    iterator, count = iter(records), 0
    with pq.ParquetWriter(folder / RECORDS, _SCHEMA, compression="zstd") as writer:
        while group := list(islice(iterator, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist([_to_row(record) for record in group], schema=_SCHEMA))
            count += len(group)
    return count


def _to_row(record: RawRecord) -> dict[str, object]:
    pixels = None if record.pixels is None else _in_8_bits(record.pixels)
    height, width, channels = (0, 0, 0) if pixels is None else pixels.shape
    return {
        "id": record.id,
        "label": record.label,
        "where": record.where,
        "split": record.split,
        "problem": record.problem,
        "height": height,
        "width": width,
        "channels": channels,
        "pixel_type": None if pixels is None else str(pixels.dtype),
        "pixels": None if pixels is None else pixels.tobytes(),
        "text": record.text,
        "group": record.group,
    }


def _in_8_bits(pixels: Pixels) -> Pixels:
    """`pixels` in a quarter of the room where they are whole numbers from 0 to 255."""
    if pixels.dtype == np.uint8:
        return pixels
    if not np.isfinite(pixels).all() or pixels.min(initial=0) < 0 or pixels.max(initial=0) > 255:
        return pixels
    short = pixels.astype(np.uint8)
    return short if (short == pixels).all() else pixels


def unpack_pixels(row: dict[str, Any]) -> Pixels:
    """The picture of a packed row; empty for other kinds, and where it could not be read."""
    pixels: Pixels = np.frombuffer(row["pixels"] or b"", dtype=row["pixel_type"] or np.uint8)
    return pixels.reshape(row["height"], row["width"], row["channels"])


def read_groups(folder: Path) -> Iterator[pa.RecordBatch]:
    """The packed set in pieces that fit in memory, in order."""
    with pq.ParquetFile(folder / RECORDS) as file:
        yield from file.iter_batches(batch_size=_ROWS_PER_GROUP)


def read_texts(folder: Path) -> list[str]:
    """The text of each record, good or bad, in order; empty where there is none."""
    return [text or "" for batch in read_groups(folder) for text in batch.column("text").to_pylist()]


def read_accepted(folder: Path, rows: NDArray[np.int64]) -> list[PackedRecord]:
    """The records at row numbers `rows` (ascending), for data sets whose records fit in memory."""
    wanted, first = set(rows.tolist()), 0
    accepted: list[PackedRecord] = []
    for batch in read_groups(folder):
        for offset, row in enumerate(batch.to_pylist()):
            if first + offset in wanted:
                accepted.append(_to_record(row))
        first += batch.num_rows
    return accepted


def _to_record(row: dict[str, Any]) -> PackedRecord:
    return PackedRecord(
        id=row["id"],
        label=row["label"] or "",
        split=row["split"],
        pixels=unpack_pixels(row),
        text=row["text"] or "",
        group=row["group"],
    )
