"""A deterministic stratified split in which no picture and its near copy part ways.

Pictures closer than a distance form a group (transitively); whole groups are dealt to the
splits, label by label, the rarest label first served by its own share.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed
from recaster.recipe.schema import SplitSection

SPLITS = ("train", "validation", "test")
_BLOCK_ROWS = 1024


def group_duplicates(pictures: NDArray[np.float32], *, distance: float) -> NDArray[np.int64]:
    """Number the groups of exact and near duplicates.

    Exact over all pairs, in blocks: time grows with the square of the rows, memory does not.

    Args:
        pictures: `(rows, features)` scaled to 0..1.
        distance: root mean square difference under which two pictures are one.

    Returns:
        `(rows,)` group numbers; a group is named by its first row.
    """
    parent = np.arange(len(pictures))
    squares = np.einsum("ij,ij->i", pictures, pictures, dtype=np.float64)
    limit = distance**2 * pictures.shape[1]
    for start in range(0, len(pictures), _BLOCK_ROWS):
        block = pictures[start : start + _BLOCK_ROWS]
        stop = start + len(block)
        gaps = squares[start:stop, None] + squares[None, :stop] - 2.0 * (block @ pictures[:stop].T)
        near = np.argwhere(gaps <= limit + 1e-6)
        for row, other in near[near[:, 0] + start > near[:, 1]]:
            _join(parent, int(row) + start, int(other))
    return np.array([_root(parent, row) for row in range(len(parent))], dtype=np.int64)


def _root(parent: NDArray[np.int64], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return row


def _join(parent: NDArray[np.int64], one: int, other: int) -> None:
    first, second = sorted((_root(parent, one), _root(parent, other)))
    parent[second] = first


def split_records(
    labels: NDArray[np.int64], groups: NDArray[np.int64], section: SplitSection
) -> dict[str, NDArray[np.int64]]:
    """Deal records to `train`, `validation` and `test`.

    A group goes by the label of its first record, so the shares of each label are met to
    within one group.

    Args:
        labels: `(rows,)` class numbers.
        groups: `(rows,)` group numbers.

    Returns:
        Ascending row numbers of each split; every row is in exactly one.
    """
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(row)
    dealt: dict[str, list[int]] = {name: [] for name in SPLITS}
    for label in sorted(set(labels.tolist())):
        own = [group for group in members if labels[group] == label]
        order = np.random.default_rng(derive_seed(section.seed, "split", label)).permutation(len(own))
        total = sum(len(members[group]) for group in own)
        wanted = {"test": section.test * total, "validation": section.validation * total}
        for position in order:
            rows = members[own[position]]
            name = next((name for name in ("test", "validation") if wanted[name] >= len(rows) / 2), "train")
            if name != "train":
                wanted[name] -= len(rows)
            dealt[name].extend(rows)
    return {name: np.array(sorted(rows), dtype=np.int64) for name, rows in dealt.items()}
