"""Accepted pictures with no label, one or several, divided into shards without leakage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.files import write_json
from recaster.data.labels import count_labels, find_rarest, number_labels
from recaster.data.packed import read_accepted
from recaster.data.shards import Shard, stack_pictures, write_shard
from recaster.data.slice_groups import write_slice_groups
from recaster.data.split import divide_records, group_duplicates

if TYPE_CHECKING:
    from recaster.recipe.data import DataSection, SplitSection


def write_picture_splits(
    raw: Path, accepted: NDArray[np.int64], data: DataSection, split: SplitSection, folder: Path
) -> dict[str, Any]:
    """Group duplicates, split, write the shards and splits.json into `folder`; return counts.

    Without `data.labels` all pictures are of class 0.
    """
    records, image = read_accepted(raw, accepted), data.image
    assert image is not None  # noqa: S101 - the workload's kind
    pixels, minimum, maximum = stack_pictures([record.pixels for record in records], image)
    told = [record.label for record in records]
    labels = number_labels(told, data) if data.labels else np.zeros(len(told), dtype=np.int64)
    groups = group_duplicates(pixels, distance=split.near_duplicate_distance, span=maximum - minimum)
    splits, left_out = divide_records(
        find_rarest(labels), groups, [record.split for record in records], split
    )
    for name, rows in splits.items():
        shard = Shard(
            images=pixels[rows],
            labels=labels[rows],
            ids=[records[row].id for row in rows.tolist()],
            minimum=minimum,
            maximum=maximum,
        )
        write_shard(folder, name, shard)
        write_slice_groups(folder, name, [records[row].group for row in rows.tolist()])
    counts = {name: len(rows) for name, rows in splits.items()}
    duplicates = len(groups) - len(set(groups.tolist()))
    per_label = {name: count_labels(labels[rows]) for name, rows in splits.items()}
    facts = {"rows": counts, "duplicates": duplicates, "left_out": left_out}
    write_json(folder / "splits.json", {**facts, "labels": data.labels, "per_label": per_label})
    return facts
