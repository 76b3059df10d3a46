"""Prepared splits of token rows of unequal length, memory-mapped.

train.tokens.npy     (tokens,) int32, all rows one after the other
train.offsets.npy    (rows + 1,) int64, where each row begins
train.labels.npy     (rows,) int64
train.ids.json       ["request-0001", …]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.core.files import read_json, write_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShard:
    """One split."""

    tokens: NDArray[np.int32]
    """`(tokens,)`, memory-mapped."""
    offsets: NDArray[np.int64]
    """`(rows + 1,)`."""
    labels: NDArray[np.int64]
    """`(rows,)` class numbers."""
    ids: list[str]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, `(rows,)`."""
        return np.diff(self.offsets)

    def padded(self, rows: NDArray[np.int64], padding: int) -> NDArray[np.int64]:
        """Tokens of `rows` up to the longest of them, `(rows, tokens)`, filled up with `padding`."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        columns = np.arange(lengths.max(initial=1))
        inside = columns < lengths[:, None]
        filled = np.full(inside.shape, padding, dtype=np.int64)
        filled[inside] = self.tokens[(starts[:, None] + columns)[inside]]
        return filled


def take_rows(shard: TokenShard, rows: NDArray[np.int64]) -> TokenShard:
    """Those `rows` of a split, in memory."""
    return make_token_shard(
        [shard.tokens[shard.offsets[row] : shard.offsets[row + 1]].tolist() for row in rows.tolist()],
        labels=shard.labels[rows],
        ids=[shard.ids[row] for row in rows.tolist()],
    )


class TokenRows:
    """A split's rows of unequal length as training asks for them; a workload adds `batch`."""

    uniform = False

    def __init__(self, shard: TokenShard, *, padding: int) -> None:
        self._shard, self._padding = shard, padding
        self.lengths = shard.lengths

    def __len__(self) -> int:
        """Rows of the split."""
        return len(self._shard.labels)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of `rows`."""
        return [self._shard.ids[row] for row in rows.tolist()]


def make_token_shard(
    rows: Sequence[Sequence[int]], *, labels: NDArray[np.int64], ids: list[str]
) -> TokenShard:
    """One split in memory."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    flat = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(lengths.sum()))
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
    return TokenShard(tokens=flat, offsets=offsets, labels=labels, ids=ids)


def write_token_shard(
    folder: Path, split: str, *, rows: Sequence[Sequence[int]], labels: NDArray[np.int64], ids: list[str]
) -> None:
    """Write one split into `folder`."""
    shard = make_token_shard(rows, labels=labels, ids=ids)
    np.save(folder / f"{split}.tokens.npy", shard.tokens)
    np.save(folder / f"{split}.offsets.npy", shard.offsets)
    np.save(folder / f"{split}.labels.npy", labels)
    write_bytes(folder / f"{split}.ids.json", json.dumps(ids).encode())


def read_token_shard(folder: Path, split: str) -> TokenShard:
    """Map one split of `folder` into memory."""
    return TokenShard(
        tokens=np.load(folder / f"{split}.tokens.npy", mmap_mode="r"),
        offsets=np.load(folder / f"{split}.offsets.npy"),
        labels=np.load(folder / f"{split}.labels.npy"),
        ids=read_json(folder / f"{split}.ids.json"),
    )
