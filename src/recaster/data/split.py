"""A deterministic stratified split in which no record and its near copy part ways.

Pictures closer than a distance form a group (transitively), and texts that differ in case,
punctuation and spaces only; whole groups are dealt to the splits, label by label, the rarest label
first served by its own share. A published split stays as its authors made it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed
from recaster.recipe.data import SplitSection

SPLITS = ("train", "validation", "test")
_BLOCK_ROWS, _GRID = 1024, 8
_NOT_WORD = re.compile(r"[\W_]+")


def group_duplicates(
    pictures: NDArray[np.uint8] | NDArray[np.float32], *, distance: float, span: float
) -> NDArray[np.int64]:
    """Number the groups of exact and near duplicates, exactly.

    Sums over an 8x8 grid bound the distance of two pictures from below (Cauchy-Schwarz), and so does
    brightness: most pairs need not be looked at. 12,500 pictures of 32x32 in colour take half a second of a
    core. Time still grows with the square of the rows, memory does not.

    Args:
        pictures: `(rows, channels, height, width)`.
        distance: root mean square difference under which two pictures are one, as a share of `span`.
        span: largest less smallest legal pixel value.

    Returns:
        `(rows,)` group numbers; a group is named by its first row.
    """
    rows, features = len(pictures), pictures[0].size if len(pictures) else 0
    limit = (distance * span) ** 2 * features + 1e-6 * span**2
    coarse = _sum_cells(pictures)
    bright = coarse.sum(1, dtype=np.float64) / np.sqrt(max(1, coarse.shape[1]))
    order = np.argsort(bright, kind="stable")
    coarse, bright = coarse[order], bright[order]
    squares = np.einsum("ij,ij->i", coarse, coarse)
    slack = 1e-4 * float(squares.max(initial=0.0)) + 1e-6  # rounding of the products below
    parent = np.arange(rows)
    for start in range(0, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        last = int(np.searchsorted(bright, bright[stop - 1] + np.sqrt(limit) + 1e-3, side="right"))
        gaps = (
            squares[start:stop, None]
            + squares[None, start:last]
            - 2.0 * (coarse[start:stop] @ coarse[start:last].T)
        )
        pairs = np.argwhere(gaps <= limit + slack)
        pairs = order[pairs[pairs[:, 0] < pairs[:, 1]] + start]
        for one, other in pairs[_are_near(pictures, pairs, limit)].tolist():
            _join(parent, one, other)
    return np.array([_root(parent, row) for row in range(rows)], dtype=np.int64)


def _sum_cells(pictures: NDArray[Any]) -> NDArray[np.float32]:
    """`(rows, cells)`: whose squared distances are never above those of the pictures."""
    sides = [
        np.linspace(0, side, min(side, _GRID), endpoint=False).astype(int) for side in pictures.shape[2:]
    ]
    sizes = [np.diff([*cuts, side]) for cuts, side in zip(sides, pictures.shape[2:], strict=True)]
    weights = np.sqrt(np.outer(*sizes)).astype(np.float32)
    pieces = []
    for start in range(0, len(pictures), _BLOCK_ROWS):
        block = pictures[start : start + _BLOCK_ROWS].astype(np.float32)
        block = np.add.reduceat(np.add.reduceat(block, sides[0], axis=2), sides[1], axis=3)
        pieces.append((block / weights).reshape(len(block), -1))
    return np.concatenate(pieces) if pieces else np.empty((0, 1), dtype=np.float32)


def _are_near(pictures: NDArray[Any], pairs: NDArray[np.int64], limit: float) -> NDArray[np.bool_]:
    near = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _BLOCK_ROWS):
        one, other = pairs[start : start + _BLOCK_ROWS].T
        apart = pictures[one].astype(np.float32) - pictures[other].astype(np.float32)
        near[start : start + _BLOCK_ROWS] = np.square(apart).sum((1, 2, 3), dtype=np.float64) <= limit
    return near


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
