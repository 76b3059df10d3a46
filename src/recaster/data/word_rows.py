"""Rows of words as training asks for them: cut from the documents of a split, frequent words left out.

train.tokens.npy    (words,) int32, all documents one after the other
train.offsets.npy   (documents + 1,) int64, where each begins
row 7               words 7 x 128 … 8 x 128 - 1; `~word` where a document begins; `FILLER` behind the last
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recaster.core.files import read_json
from recaster.data.token_shards import read_token_shard
from recaster.models.word_contexts import FILLER

SPLITS, COUNTS = "splits.json", "counts.npy"


class WordRows:
    """One split; what a row has of the corpus's frequent words is a function of (seed, row)."""

    uniform = False
    lengths = None

    def __init__(self, prepared: Path, split: str, contexts: Mapping[str, Any]) -> None:
        about = read_json(prepared / SPLITS)
        self._size: int = about["row_words"]
        shard = read_token_shard(prepared, split)
        self._words, self._ids = shard.tokens, shard.ids
        self._begins = np.zeros(len(shard.tokens) + 1, dtype=bool)
        self._begins[shard.offsets] = True  # an empty document begins where the next one does
        self._offsets = shard.offsets
        self._kept = keep_shares(np.load(prepared / COUNTS), contexts["subsample"])

    def __len__(self) -> int:
        """Rows of the split; of one without words, none."""
        return math.ceil(len(self._words) / self._size)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The document in which each of `rows` begins, and the row's number."""
        documents = np.searchsorted(self._offsets, rows * self._size, side="right") - 1
        return [f"{self._ids[document]}@{row}" for document, row in zip(documents, rows, strict=True)]

    def targets_in(self, rows: NDArray[np.int64]) -> int:
        """Words of the corpus in `rows`."""
        ends = np.minimum((rows + 1) * self._size, len(self._words))
        return int((ends - rows * self._size).sum())

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Words `(rows, most words)`, closed up over those left out, and how many words each row had.

        Without a seed no word is left out.
        """
        places = rows[:, None] * self._size + np.arange(self._size)
        real = places < len(self._words)
        places = np.minimum(places, len(self._words) - 1)
        words = self._words[places]
        kept = real if seed is None else real & (_random(seed, places) < self._kept[words])
        documents = self._begins[places].cumsum(1)
        counts = kept.sum(1)
        inside = np.arange(max(1, int(counts.max(initial=1)))) < counts[:, None]
        closed = np.full(inside.shape, FILLER, dtype=np.int64)
        of_document = np.zeros(inside.shape, dtype=np.int64)
        closed[inside], of_document[inside] = words[kept], documents[kept]
        # What begins a document may be left out: the first word that is kept of it begins it.
        first = inside.copy()
        first[:, 1:] &= of_document[:, 1:] != of_document[:, :-1]
        first[:, 0] &= of_document[:, 0] > 0
        closed[first] = ~closed[first]
        return torch.from_numpy(closed), torch.from_numpy(real.sum(1))


def keep_shares(counts: NDArray[np.int64], subsample: float) -> NDArray[np.float32]:
    """The share of each word's occurrences that is kept, `(words,)`.

    Source: word2vec's code (Mikolov et al. 2013), which keeps somewhat more than the paper's formula.
    """
    if not subsample:
        return np.ones(len(counts), dtype=np.float32)
    ratio = subsample * counts.sum() / counts
    shares: NDArray[np.float32] = np.minimum(1.0, np.sqrt(ratio) + ratio).astype(np.float32)
    return shares


def _random(seed: int, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """A number in [0, 1) for each place, by its own hash with `seed`.

    Source: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    """
    start = (seed * 0x9E3779B97F4A7C15) & (2**64 - 1)
    value = (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    fractions: NDArray[np.float32] = (value >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return fractions
