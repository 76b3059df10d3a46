"""By which the records of a prepared split are told apart in slices: `test.groups.json`, a name a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from recaster.core.files import read_json, write_bytes


def write_slice_groups(folder: Path, split: str, groups: Sequence[str]) -> None:
    """Write the groups of a split's rows, in the shard's order; empty where none is named."""
    write_bytes(folder / f"{split}.groups.json", json.dumps(list(groups)).encode())


def read_slice_groups(folder: Path, split: str) -> list[str]:
    """What `write_slice_groups` wrote."""
    groups: list[str] = read_json(folder / f"{split}.groups.json")
    return groups
