"""A raw data set packed into one Parquet file, good and bad records alike.

    id          label  where                 height width channels pixels          problem
    digit-0000  0      load_digits, row 0    8      8     1        [0, 0, 5, …]

One file costs DVC a second where thousands of small ones cost most of a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recaster.data.sources import RawRecord

RECORDS = "records.parquet"
_ROWS_PER_GROUP = 4096
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("where", pa.string()),
        ("problem", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("channels", pa.int32()),
        ("pixels", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRecord:
    """A record that passed its contract."""

    id: str
    label: str
    pixels: NDArray[np.float32]
    """`(height, width, channels)`."""


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
    height, width, channels = record.pixels.shape if record.pixels is not None else (0, 0, 0)
    return {
        "id": record.id,
        "label": record.label,
        "where": record.where,
        "problem": record.problem,
        "height": height,
        "width": width,
        "channels": channels,
        "pixels": record.pixels.ravel() if record.pixels is not None else None,
    }


def read_groups(folder: Path) -> Iterator[pa.RecordBatch]:
    """The packed set in pieces that fit in memory, in order."""
    with pq.ParquetFile(folder / RECORDS) as file:
        yield from file.iter_batches(batch_size=_ROWS_PER_GROUP)


def read_accepted(folder: Path, rows: NDArray[np.int64]) -> list[PackedRecord]:
    """The records at row numbers `rows` (ascending), for data sets whose records fit in memory."""
    wanted, first = set(rows.tolist()), 0
    accepted: list[PackedRecord] = []
    for batch in read_groups(folder):
        for offset, row in enumerate(batch.to_pylist()):
            if first + offset in wanted:
                pixels = np.asarray(row["pixels"], dtype=np.float32)
                pixels = pixels.reshape(row["height"], row["width"], row["channels"])
                accepted.append(PackedRecord(id=row["id"], label=row["label"], pixels=pixels))
        first += batch.num_rows
    return accepted
