"""A seeded part of a data set, so many records of each label.

A record is taken or left by its own id, so that most of a subset stays when the data set grows.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator

from recaster.data.records import RawRecord
from recaster.recipe.data import Subset


def choose_rows(records: Iterable[tuple[str | None, str | None]], subset: Subset) -> set[int]:
    """The rows to take of records given by id and label, those without a legal label among them."""
    rows: dict[str | None, list[tuple[bytes, int]]] = {}
    for row, (name, label) in enumerate(records):
        key = hashlib.blake2b(f"{subset.seed}/{name}".encode(), digest_size=8).digest()
        rows.setdefault(label, []).append((key, row))
    return {row for own in rows.values() for _, row in heapq.nsmallest(subset.per_label, own)}


def thin(read: Callable[[], Iterator[RawRecord]], subset: Subset) -> Iterator[RawRecord]:
    """The records of `subset` of those that `read` gives, which is called twice."""
    chosen = choose_rows(((record.id, record.label) for record in read()), subset)
    return (record for row, record in enumerate(read()) if row in chosen)
