"""A biaffine dependency parser (Dozat and Manning 2017) that tags and finds lemmas by the same vectors.

This file and what it shares import only torch: they travel with every exported model as `modeling.py`.

    words → BERT's pieces, averaged, or word vectors → LSTMs ┐
    letters → convolution, largest of each filter            ┴→ heads, relations, tags, lemma rules

    model = build_model(**json.load(open("config.json"))["arguments"])
    Parser(model, vocabulary=json.load(open("vocabulary.json")), …).parse(sentences)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.bert_encoder import BertEncoder
from recaster.models.parser_columns import CHARACTER_COLUMNS, PIECES_FROM
from recaster.models.reversed_rows import take_places, turn_around

_WORD_WIDTH, _LETTER_WIDTH, _FILTERS, _SPAN = 100, 32, 100, 3
_UNKNOWN_SHARE = 0.25
"""Of words that training shows as unknown, so that letters and neighbours must tell."""
_IMPOSSIBLE = -1e9


class SharedDropout(nn.Module):
    """Leaves the same values out at all words of a row (Gal and Ghahramani 2016)."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, states: Tensor) -> Tensor:
        """`(rows, words, width)` to the same shape."""
        if not self.training or not self.share:
            return states
        kept = torch.rand(len(states), 1, states.shape[2], device=states.device) >= self.share
        left: Tensor = states * kept / (1 - self.share)
        return left


class Letters(nn.Module):
    """A vector of each word's letters."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(characters + 1, _LETTER_WIDTH, padding_idx=0)
        self.filters = nn.Conv1d(_LETTER_WIDTH, _FILTERS, _SPAN, padding=_SPAN // 2)

    def forward(self, letters: Tensor) -> Tensor:
        """`(rows, words, 100)` of letters' numbers `(rows, words, letters)`, -1 where there is none."""
        vectors = self.vectors(letters.flatten(0, 1) + 1)
        largest: Tensor = F.relu(self.filters(vectors.transpose(1, 2))).amax(2)
        of_words: Tensor = largest.unflatten(0, letters.shape[:2])
        return of_words


class OpenWords(nn.Module):
    """Words by an open encoder: a word is the mean, or the first, of its pieces."""

    def __init__(self, size: Mapping[str, Any], *, first_piece: bool) -> None:
        super().__init__()
        self.encoder = BertEncoder(size)
        self.begin, self.end, self.first_piece = size["begin"], size["end"], first_piece
        self.features = int(size["width"])

    def forward(self, inputs: Tensor, counted: Tensor) -> Tensor:  # noqa: ARG002
        """`(rows, words, width)`; see `DependencyParser.forward`."""
        pieces = inputs[:, :, PIECES_FROM:]
        there = pieces >= 0
        line = there.flatten(1).cumsum(1).view_as(pieces)  # a piece's place, after the one that begins
        count = there.flatten(1).sum(1)
        longest = int(count.max())
        rows, words, columns = there.nonzero(as_tuple=True)
        places = line[rows, words, columns]
        tokens = pieces.new_zeros(len(pieces), longest + 2)
        tokens[:, 0] = self.begin
        tokens[torch.arange(len(pieces), device=pieces.device), count + 1] = self.end
        tokens[rows, places] = pieces[rows, words, columns]
        seen = torch.arange(longest + 2, device=pieces.device) < (count + 2)[:, None]
        states = self.encoder(tokens, seen)
        taken = there & (columns_before(there) == 0) if self.first_piece else there
        shares = taken / taken.sum(2, keepdim=True).clamp(min=1)
        # As a product of matrices, which adds up in one order on every device.
        pooling = states.new_zeros(*there.shape[:2], longest + 2)
        pooling[rows, words, places] = shares[rows, words, columns].to(states.dtype)
        mixed: Tensor = pooling @ states
        return mixed


def columns_before(there: Tensor) -> Tensor:
    """How many of a word's pieces stand before each, `(rows, words, pieces)`."""
    return there.long().cumsum(2) - there.long()


class RecurrentWords(nn.Module):
    """Words by vectors of their own and of their letters, read by LSTMs in both directions."""

    def __init__(self, *, words: int, characters: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.vectors = nn.Embedding(words, _WORD_WIDTH)
        nn.init.normal_(self.vectors.weight, std=_WORD_WIDTH**-0.5)
        self.letters = Letters(characters)
        inputs = [_WORD_WIDTH + _FILTERS, *[2 * width] * (depth - 1)]
        self.onward = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in inputs)
        self.backward_ = nn.ModuleList(nn.LSTM(size, width, batch_first=True) for size in inputs)
        self.dropout = SharedDropout(dropout)
        self.features = 2 * width

    def forward(self, inputs: Tensor, counted: Tensor) -> Tensor:
        """`(rows, words, 2 x width)`; see `DependencyParser.forward`."""
        numbers = inputs[:, :, 0].clamp(min=0)
        if self.training:
            numbers = numbers * (torch.rand(numbers.shape, device=numbers.device) >= _UNKNOWN_SHARE)
        letters = self.letters(inputs[:, :, 1:CHARACTER_COLUMNS])
        states = torch.cat([self.vectors(numbers), letters], 2) * counted[:, :, None]
        turned = turn_around(counted)
        for onward, backward in zip(self.onward, self.backward_, strict=True):
            states = self.dropout(states)
            there = onward(states)[0]
            back = backward(take_places(states, turned))[0]
            states = torch.cat([there, take_places(back, turned)], 2)
        return states


class Biaffine(nn.Module):
    """A score, or several, of each pair of a dependent and a head."""

    def __init__(self, features: int, width: int, *, scores: int, dropout: float) -> None:
        super().__init__()
        self.dependent, self.head = (
            nn.Sequential(nn.Linear(features, width), nn.LeakyReLU(0.1), SharedDropout(dropout))
            for _ in range(2)
        )
        self.root = nn.Parameter(torch.randn(width) * width**-0.5)
        self.weight = nn.Parameter(torch.zeros(width + 1, scores, width + 1))

    def forward(self, states: Tensor) -> Tensor:
        """`(rows, words, words + 1, scores)` of `(rows, words, features)`; the first head is the root."""
        dependents = F.pad(self.dependent(states), (0, 1), value=1.0)
        root = self.root.to(dependents.dtype).expand(len(states), 1, -1)
        heads = F.pad(torch.cat([root, self.head(states)], 1), (0, 1), value=1.0)
        asked = (dependents @ self.weight.flatten(1)).unflatten(2, self.weight.shape[1:])
        found = asked.flatten(1, 2) @ heads.transpose(1, 2)
        scores: Tensor = found.unflatten(1, asked.shape[1:3]).transpose(2, 3)
        return scores


class DependencyParser(nn.Module):
    """The network."""

    def __init__(
        self,
        words: OpenWords | RecurrentWords,
        *,
        characters: int,
        relations: int,
        tags: Sequence[int],
        biaffine: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.words = words
        open_words = isinstance(words, OpenWords)
        # The pieces of an open encoder may be without case; letters are not.
        self.letters = Letters(characters) if open_words else None
        features = words.features + (_FILTERS if open_words else 0)
        self.dropout = SharedDropout(dropout)
        self.arcs = Biaffine(features, biaffine, scores=1, dropout=dropout)
        self.relations = Biaffine(features, max(1, biaffine // 2), scores=relations, dropout=dropout)
        self.tags = nn.Sequential(
            nn.Linear(features, biaffine),
            nn.LeakyReLU(0.1),
            SharedDropout(dropout),
            nn.Linear(biaffine, sum(tags)),
        )
        self.tag_sizes = list(tags)

    def forward(self, inputs: Tensor) -> Tensor:
        """What is thought of each word, all as logarithms of probabilities.

        Args:
            inputs: `(rows, words, columns)`: the word's number, its letters', its pieces'; -1 where there
                is none.

        Returns:
            `(rows, words, slots, 1 + relations)`. The last words + 1 slots are the heads, the root first:
            how likely the word depends on it, then by which relation, if it does. The slots before them
            hold the tags: of each kind one after the other.
        """
        counted = inputs[:, :, 0] >= 0
        states = self.words(inputs, counted)
        if self.letters is not None:
            letters = self.letters(inputs[:, :, 1:CHARACTER_COLUMNS]).to(states.dtype)
            states = torch.cat([states, letters], 2)
        states = self.dropout(states)
        arcs = self.arcs(states)[..., 0].float()
        possible = F.pad(counted, (1, 0), value=True)[:, None].expand_as(arcs).clone()
        possible[:, :, 1:].diagonal(dim1=1, dim2=2).fill_(value=False)
        arcs = arcs.masked_fill(~possible, _IMPOSSIBLE).log_softmax(2)
        relations = self.relations(states).float().log_softmax(3)
        tags = torch.cat(
            [part.log_softmax(2) for part in self.tags(states).float().split(self.tag_sizes, 2)], 2
        )
        width = 1 + relations.shape[3]
        slots = F.pad(tags, (0, -tags.shape[2] % width)).unflatten(2, (-1, width))
        return torch.cat([slots, torch.cat([arcs[..., None], relations], 3)], 2)

    def layers(self) -> list[str]:
        """Names of the modules that count as layers, from the input on."""
        if isinstance(self.words, OpenWords):
            blocks = [f"words.encoder.blocks.{number}" for number in range(len(self.words.encoder.blocks))]
            before = ["words.encoder.embeddings", *blocks, "letters"]
        else:
            before = ["words"]
        return [*before, "arcs", "relations", "tags"]


def build_model(
    *,
    encoder: Mapping[str, Any] | None,
    words: int,
    characters: int,
    relations: int,
    tags: Sequence[int],
    width: int,
    depth: int,
    biaffine: int,
    dropout: float,
    first_piece: bool,
) -> DependencyParser:
    """The network, with fresh weights from torch's present random state.

    Args:
        encoder: the size of a BERT, and the pieces that begin and end its rows; None for LSTMs.
        words: that have a vector, of LSTMs, the unknown one among them.
        characters: letters that are known.
        tags: how many there are of each kind.
        width: of the LSTMs' states in each direction.
        depth: layers of LSTMs.
        biaffine: width of what heads and dependents are compared by; relations have half of it.
        first_piece: a word is its first piece, not the mean of them.
    """
    body: OpenWords | RecurrentWords
    if encoder is None:
        body = RecurrentWords(words=words, characters=characters, width=width, depth=depth, dropout=dropout)
    else:
        body = OpenWords(encoder, first_piece=first_piece)
    return DependencyParser(
        body, characters=characters, relations=relations, tags=tags, biaffine=biaffine, dropout=dropout
    )
