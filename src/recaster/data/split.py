"""A deterministic stratified split in which no record and its near copy part ways.

Pictures closer than a distance form a group (transitively), and texts that differ in case,
punctuation and spaces only; whole groups are dealt to the splits, label by label, the rarest label
first served by its own share. A published split stays as its authors made it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed
from recaster.recipe.data import SplitSection

SPLITS = ("train", "validation", "test")
_BLOCK_ROWS = 1024
_NOT_WORD = re.compile(r"[\W_]+")


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


def group_texts(texts: Sequence[str]) -> NDArray[np.int64]:
    """Number the groups of texts that are one but for case, punctuation and spaces; as `group_duplicates`."""
    first: dict[str, int] = {}
    keys = (_NOT_WORD.sub(" ", text.casefold()).strip() or text for text in texts)
    return np.array([first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)


def divide_records(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    published: Sequence[str],
    section: SplitSection,
) -> tuple[dict[str, NDArray[np.int64]], int]:
    """Deal records to the splits that their authors have not made.

    Args:
        labels: `(rows,)` class numbers; all 0 for data without labels.
        groups: `(rows,)` group numbers.
        published: the split of each record, empty for those to deal out.

    Returns:
        Ascending row numbers of each split, and how many records were left out because an equal one is
        in a published split: in the test split for those of validation, in either for the others.
    """
    names = np.array(published, dtype=object)
    kept = np.ones(len(groups), dtype=bool)
    held: set[int] = set()
    for name in ("test", "validation"):
        own = names == name
        kept[own] &= ~np.isin(groups[own], list(held))
        held |= set(groups[own].tolist())
    rest = names == ""
    kept[rest] &= ~np.isin(groups[rest], list(held))
    free = np.flatnonzero(rest & kept)
    dealt = split_records(labels[free], _renamed(groups[free]), section)
    splits = {name: free[rows] for name, rows in dealt.items()}
    for name in ("test", "validation"):
        if (names == name).any():
            splits[name] = np.flatnonzero((names == name) & kept)
    return splits, int((~kept).sum())


def _root(parent: NDArray[np.int64], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return row


def _join(parent: NDArray[np.int64], one: int, other: int) -> None:
    first, second = sorted((_root(parent, one), _root(parent, other)))
    parent[second] = first


def _renamed(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups of some of the rows, each named by the first of these."""
    first: dict[int, int] = {}
    return np.array(
        [first.setdefault(group, row) for row, group in enumerate(groups.tolist())], dtype=np.int64
    )


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
        wanted = {"test": (section.test or 0.0) * total, "validation": (section.validation or 0.0) * total}
        for position in order:
            rows = members[own[position]]
            name = next((name for name in ("test", "validation") if wanted[name] >= len(rows) / 2), "train")
            if name != "train":
                wanted[name] -= len(rows)
            dealt[name].extend(rows)
    return {name: np.array(sorted(rows), dtype=np.int64) for name, rows in dealt.items()}
