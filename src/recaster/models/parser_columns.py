"""Words as rows of numbers, and what a parser says of them as columns of CoNLL-U.

studied → [812, 19 20 21 4 9 5 4 -1 …, 3273 -1 …]      the word, its letters, its pieces

    vocabulary.json  {"words": […], "characters": […], "relations": […], "upos": […], "xpos": […],
                      "feats": […], "lemmas": ["keep::", …]}

This file imports only torch: its text travels with every exported parser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recaster.models.conllu import Sentence, Word
from recaster.models.lemma_rules import apply_rule, find_rule
from recaster.models.tree_decoding import find_projective_tree, find_tree

CHARACTER_COLUMNS = 1 + 20
"""After the word's number: longer words are seen by their first and last ten letters."""
PIECES_FROM = CHARACTER_COLUMNS
_PIECES = 8
"""Of a word, at most."""
SPECIAL_PIECES = 2
"""That begin and end an encoder's row."""
TAGS = ("upos", "xpos", "feats", "lemmas")
NO_TARGET = -1
UNKNOWN = ""
Vocabulary = Mapping[str, Sequence[str]]
Pieces = Callable[[str], list[int]]


def collect_vocabulary(sentences: Iterable[Sentence], *, words: int, least: int) -> dict[str, list[str]]:
    """What the sentences have, the frequent first.

    Args:
        words: the most that get a number; the unknown one is the first of them.
        least: times that a lemma's rule must occur.
    """
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("words", "characters", "relations", *TAGS)
    }
    for word in (word for sentence in sentences for word in sentence.words):
        counts["words"][word.form.lower()] += 1
        counts["characters"].update(word.form)
        counts["relations"][word.deprel] += 1
        for name in ("upos", "xpos", "feats"):
            counts[name][getattr(word, name)] += 1
        counts["lemmas"][find_rule(word.form, word.lemma)] += 1
    ranked = {
        name: [entry for entry, _ in sorted(found.items(), key=lambda one: (-one[1], one[0]))]
        for name, found in counts.items()
    }
    # A word that occurs once teaches its vector little; what the unknown one means is learned from them.
    ranked["words"] = [UNKNOWN, *(word for word in ranked["words"] if counts["words"][word] > 1)][:words]
    ranked["characters"] = [UNKNOWN, *ranked["characters"]]
    ranked["lemmas"] = [rule for rule in ranked["lemmas"] if counts["lemmas"][rule] >= least]
    return ranked


class WordEncoder:
    """From forms to the parser's input."""

    def __init__(self, vocabulary: Vocabulary, pieces: Pieces | None, *, most_pieces: int = 0) -> None:
        self._words = {word: number for number, word in enumerate(vocabulary["words"])}
        self._letters = {letter: number for number, letter in enumerate(vocabulary["characters"])}
        self._pieces, self._most_pieces = pieces, most_pieces
        self._known: dict[str, list[int]] = {}

    @property
    def columns(self) -> int:
        """Of the input."""
        return CHARACTER_COLUMNS + (_PIECES if self._pieces else 0)

    def encode(self, forms: Sequence[str]) -> list[list[int]]:
        """A row of numbers for each word.

        Where a sentence has more pieces than the encoder has places, its words keep fewer of theirs.
        """
        rows = [self._encode_word(form) for form in forms]
        for kept in range(_PIECES - 1, 0, -1):
            if not self._pieces or sum(_count(row) for row in rows) <= self._most_pieces:
                break
            end = PIECES_FROM + kept
            rows = [[*row[:end], *[NO_TARGET] * (len(row) - end)] for row in rows]
        return rows

    def _encode_word(self, form: str) -> list[int]:
        if form not in self._known:
            half = (CHARACTER_COLUMNS - 1) // 2
            seen = form if len(form) < CHARACTER_COLUMNS else form[:half] + form[-half:]
            letters = [self._letters.get(letter, 0) for letter in seen]
            row = [self._words.get(form.lower(), 0), *_fill(letters, CHARACTER_COLUMNS - 1)]
            if self._pieces:
                row += _fill(self._pieces(form)[:_PIECES], _PIECES)
            self._known[form] = row
        return self._known[form]


def _fill(numbers: list[int], wanted: int) -> list[int]:
    return [*numbers, *[NO_TARGET] * (wanted - len(numbers))]


def _count(row: Sequence[int]) -> int:
    return sum(number != NO_TARGET for number in row[PIECES_FROM:])


class TargetEncoder:
    """From a sentence's columns to what training compares with."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._relations = {name: number for number, name in enumerate(vocabulary["relations"])}
        self._tags: list[dict[str, int]] = []
        start = 0
        for kind in TAGS:
            self._tags.append({name: start + number for number, name in enumerate(vocabulary[kind])})
            start += len(vocabulary[kind])

    def encode(self, word: Word) -> list[int]:
        """Head, relation, and the tags' places among all tags; -1 of what the training split has not."""
        found = [word.upos, word.xpos, word.feats, find_rule(word.form, word.lemma)]
        return [
            NO_TARGET if word.head is None else word.head,
            self._relations.get(word.deprel, NO_TARGET),
            *(known.get(name, NO_TARGET) for known, name in zip(self._tags, found, strict=True)),
        ]


def stack_rows(rows: Sequence[Sequence[Sequence[int]]], columns: int) -> Tensor:
    """Sentences as one tensor `(rows, words, columns)`, filled up with -1."""
    longest = max(map(len, rows))
    filler = [[NO_TARGET] * columns]
    return torch.tensor([[*row, *filler * (longest - len(row))] for row in rows])


class ColumnDecoder:
    """From what the parser says to heads, relations, tags and lemmas."""

    def __init__(self, vocabulary: Vocabulary, *, projective: bool) -> None:
        self._vocabulary, self._find = vocabulary, find_projective_tree if projective else find_tree

    def fill_in(self, sentence: Sentence, seen: Tensor) -> Sentence:
        """`sentence` with all that is told of its words; what no longer holds is taken out.

        Args:
            seen: `(words or more, slots, 1 + relations)`, see `DependencyParser.forward`.
        """
        words = len(sentence.words)
        slots = seen.shape[1] - seen.shape[0] - 1
        trees = seen[:words, slots : slots + words + 1]
        heads = self._find(trees[:, :, 0])
        relations = self._relations(trees, heads)
        tags = self._tags(seen[:words, :slots].flatten(1))
        filled = [
            replace(
                word,
                head=head,
                deprel=relation,
                upos=tags["upos"][place],
                xpos=tags["xpos"][place],
                feats=tags["feats"][place],
                lemma=apply_rule(tags["lemmas"][place], word.form),
                deps="_",
            )
            for place, (word, head, relation) in enumerate(zip(sentence.words, heads, relations, strict=True))
        ]
        return replace(sentence, words=tuple(filled), empty_nodes=())

    def _relations(self, trees: Tensor, heads: Sequence[int]) -> list[str]:
        """The likeliest relation of each arc; `root` at the root, and nowhere else."""
        names = self._vocabulary["relations"]
        chosen = trees[torch.arange(len(heads)), torch.tensor(heads), 1:].clone()
        if "root" in names:
            root = list(names).index("root")
            chosen[:, root] = -torch.inf
            chosen[heads.index(0), root] = torch.inf
        return [names[number] for number in chosen.argmax(1).tolist()]

    def _tags(self, logs: Tensor) -> dict[str, list[str]]:
        sizes = [len(self._vocabulary[kind]) for kind in TAGS]
        parts = logs[:, : sum(sizes)].split(sizes, 1)
        return {
            kind: [self._vocabulary[kind][number] for number in part.argmax(1).tolist()]
            for kind, part in zip(TAGS, parts, strict=True)
        }
