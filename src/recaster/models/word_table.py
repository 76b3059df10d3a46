"""Vectors of words: what training makes, how a text is cut into words, and which words are near.

This file imports only torch: a copy of it travels with every exported model as `modeling.py`.

    New York's café  →  new york's café  →  new_york's café   (with that phrase)  →  a vector each
    pieces of pump   →  <pu pum ump mp> <pum … pump>         each with the vector of its hash
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_HASH_START, _HASH_FACTOR, _32_BITS = 2166136261, 16777619, 2**32 - 1
"""Of FNV-1a, which fastText takes."""
JOINT = "_"
"""Stands between the words of a phrase, and in no word."""


def split_words(text: str, *, keep_case: bool) -> list[str]:
    """The runs of letters and digits in `text`, in its order; an apostrophe may stand within."""
    text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text if keep_case else text.lower())


def join_phrases(words: Sequence[str], passes: Sequence[set[str]]) -> list[str]:
    """`words`, in which each pair that is a phrase has become one, from left to right, pass by pass.

    Args:
        passes: of each pass the pairs that it joins, such as `new_york`.
    """
    found = list(words)
    for phrases in passes:
        joined: list[str] = []
        free = False
        for word in found:
            pair = joined[-1] + JOINT + word if free else ""
            if pair in phrases:
                joined[-1], free = pair, False
            else:
                joined.append(word)
                free = True
        found = joined
    return found


def list_pieces(word: str, *, shortest: int, longest: int) -> Iterator[str]:
    """The runs of `shortest` to `longest` letters of `<word>`, but for its ends alone."""
    marked = f"<{word}>"
    for start in range(len(marked)):
        for size in range(shortest, min(longest, len(marked) - start) + 1):
            if size > 1 or 0 < start < len(marked) - 1:
                yield marked[start : start + size]


def hash_piece(piece: str, buckets: int) -> int:
    """The bucket of a piece: FNV-1a over its UTF-8 bytes as signed numbers.

    Source: fastText, src/dictionary.cc (Bojanowski et al. 2017).
    """
    value = _HASH_START
    for byte in piece.encode():
        value ^= byte if byte < 128 else (byte - 256) & _32_BITS
        value = value * _HASH_FACTOR & _32_BITS
    return value % buckets


class WordTable(nn.Module):
    """One vector a word; with subwords also one a bucket, for words that the vocabulary lacks."""

    def __init__(self, *, words: int, width: int, subwords: Mapping[str, int] | None) -> None:
        super().__init__()
        self.subwords = subwords
        self.vectors = nn.Embedding(words, width)
        self.pieces = nn.Embedding(subwords["buckets"], width) if subwords else None

    def forward(self, numbers: Tensor) -> Tensor:
        """Vectors `(…, width)` of word numbers `(…)`."""
        vectors: Tensor = self.vectors(numbers)
        return vectors

    def compose(self, word: str) -> Tensor | None:
        """The mean vector of the pieces of a word, `(width,)`; None without subwords."""
        if self.pieces is None or self.subwords is None:
            return None
        size = {name: self.subwords[name] for name in ("shortest", "longest")}
        buckets = [hash_piece(piece, self.subwords["buckets"]) for piece in list_pieces(word, **size)]
        weight = self.pieces.weight
        return weight[buckets].mean(0) if buckets else torch.zeros(weight.shape[1])


class Lexicon:
    """A table with its words: vectors of texts, and neighbours."""

    def __init__(self, table: WordTable, vocabulary: Mapping[str, Any]) -> None:
        """Take over what vocabulary.json says: words, phrases, keep_case."""
        self.words: list[str] = vocabulary["words"]
        self.table, self._keep_case = table, vocabulary["keep_case"]
        self._numbers = {word: number for number, word in enumerate(self.words)}
        self._passes = [set(phrases) for phrases in vocabulary["phrases"]]
        self.units = F.normalize(table.vectors.weight.detach())

    def find(self, word: str) -> Tensor | None:
        """The vector of a word, `(width,)`: its own, that of its pieces, or None."""
        number = self._numbers.get(word)
        return self.table.compose(word) if number is None else self.table.vectors.weight[number]

    def split(self, text: str) -> list[str]:
        """The words and phrases of a text, known or not."""
        return join_phrases(split_words(text, keep_case=self._keep_case), self._passes)

    @torch.no_grad()
    def embed(self, text: str) -> tuple[Tensor, list[str]]:
        """The mean vector of a text's words that have one, `(width,)`, and these words; zero for none."""
        found = [(word, vector) for word in self.split(text) if (vector := self.find(word)) is not None]
        if not found:
            return torch.zeros(self.units.shape[1]), []
        return torch.stack([vector for _, vector in found]).mean(0), [word for word, _ in found]

    @torch.no_grad()
    def nearest(
        self, vector: Tensor, count: int, *, leave_out: Sequence[str] = ()
    ) -> list[tuple[str, float]]:
        """The words with the largest cosine to `vector` `(width,)`, and it; none for a zero vector."""
        if not bool(vector.any()):
            return []
        cosines = self.units @ F.normalize(vector, dim=0)
        for word in leave_out:
            if word in self._numbers:
                cosines[self._numbers[word]] = -2.0
        best = cosines.topk(min(count, len(self.words) - len(set(leave_out) & self._numbers.keys())))
        return [
            (self.words[number], value)
            for number, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def build_model(*, words: int, width: int, subwords: Mapping[str, int] | None) -> WordTable:
    """The table, with fresh vectors from torch's present random state.

    Args:
        words: of the vocabulary.
        width: numbers in a vector.
        subwords: shortest, longest, buckets; None for words alone.
    """
    return WordTable(words=words, width=width, subwords=subwords)
