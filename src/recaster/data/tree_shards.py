"""Prepared splits of sentences with trees, memory-mapped.

train.conllu        the sentences as they were, in the shard's order
train.tokens.npy    (words,) int32, numbers of the forms: what tells that a sentence is in two splits
train.words.npy     (words, columns) int32: the word's number, its letters', its pieces'; -1 fills up
train.labels.npy    (words, 6) int32: head, relation, tags
train.offsets.npy   (rows + 1,) int64, where each sentence begins
train.ids.json      ["weblog-0001", …]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recaster.core.files import read_json, write_bytes, write_json
from recaster.models.conllu import Sentence, parse_sentence, split_blocks, write_sentences
from recaster.models.parser_columns import NO_TARGET, TargetEncoder, WordEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeShard:
    """One split."""

    words: NDArray[np.int32]
    """`(words, columns)`, memory-mapped."""
    labels: NDArray[np.int32]
    """`(words, 6)`."""
    offsets: NDArray[np.int64]
    """`(rows + 1,)`."""
    ids: list[str]


class TreeSet:
    """One split of sentences as training asks for them."""

    uniform = False

    def __init__(self, shard: TreeShard) -> None:
        self._shard = shard
        self.lengths = np.diff(shard.offsets)

    def __len__(self) -> int:
        """Sentences of the split."""
        return len(self.lengths)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of `rows`."""
        return [self._shard.ids[row] for row in rows.tolist()]

    def targets_in(self, rows: NDArray[np.int64]) -> int:
        """Words of `rows`."""
        return int(self.lengths[rows].sum())

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Inputs `(rows, words, columns)` and targets `(rows, words, 6)`, filled up with -1."""
        places = np.arange(self.lengths[rows].max(initial=1))
        inside = places < self.lengths[rows][:, None]
        taken = (self._shard.offsets[rows][:, None] + places)[inside]
        return _fill(self._shard.words, taken, inside), _fill(self._shard.labels, taken, inside)


def _fill(values: NDArray[np.int32], taken: NDArray[np.int64], inside: NDArray[np.bool_]) -> Tensor:
    filled = np.full((*inside.shape, values.shape[1]), NO_TARGET, dtype=np.int64)
    filled[inside] = values[taken]
    return torch.from_numpy(filled)


def write_tree_shard(
    folder: Path,
    split: str,
    *,
    sentences: Sequence[Sentence],
    ids: Sequence[str],
    forms: Mapping[str, int],
    words: WordEncoder,
    targets: TargetEncoder,
) -> None:
    """Write one split into `folder`.

    Args:
        forms: a number for each form of all splits, in small letters.
    """
    rows = [words.encode([word.form for word in sentence.words]) for sentence in sentences]
    every = [word for sentence in sentences for word in sentence.words]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    flat = np.array([word for row in rows for word in row], dtype=np.int32).reshape(-1, words.columns)
    labels = np.array([targets.encode(word) for word in every], dtype=np.int32).reshape(-1, 6)
    np.save(folder / f"{split}.words.npy", flat)
    np.save(folder / f"{split}.labels.npy", labels)
    np.save(
        folder / f"{split}.tokens.npy", np.array([forms[word.form.lower()] for word in every], dtype=np.int32)
    )
    np.save(folder / f"{split}.offsets.npy", np.concatenate([[0], lengths.cumsum()]).astype(np.int64))
    write_bytes(folder / f"{split}.conllu", write_sentences(sentences).encode())
    write_json(folder / f"{split}.ids.json", list(ids))


def read_tree_shard(folder: Path, split: str) -> TreeShard:
    """Map one split of `folder` into memory."""
    return TreeShard(
        words=np.load(folder / f"{split}.words.npy", mmap_mode="r"),
        labels=np.load(folder / f"{split}.labels.npy", mmap_mode="r"),
        offsets=np.load(folder / f"{split}.offsets.npy"),
        ids=read_json(folder / f"{split}.ids.json"),
    )


def read_split_sentences(folder: Path, split: str) -> list[Sentence]:
    """The sentences of one split as they were, in the shard's order."""
    text = (folder / f"{split}.conllu").read_bytes().decode()
    return [parse_sentence(block) for block in split_blocks(text)]
