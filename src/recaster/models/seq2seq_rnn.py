"""Recurrent encoder-decoders with attention: Bahdanau et al. 2015 and Luong et al. 2015.

This file imports only torch and its siblings: a copy of it travels with exported models as `modeling.py`.

    source → vectors → GRU in both directions x depth → states
    bahdanau   state → looks at the states → next state of what it saw and of the newest token → logits
    luong      GRU x depth over the tokens → each state looks at the states → logits

In training Luong's decoder runs over all tokens at once, Bahdanau's token by token. What fills a source up
changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.reversed_rows import take_places, turn_around
from recaster.models.seq2seq_search import split_rows


class Encoder(nn.Module):
    """Both directions over the source, layer by layer."""

    def __init__(self, width: int, *, depth: int, dropout: float) -> None:
        super().__init__()
        inputs = [width, *[2 * width] * (depth - 1)]
        self.onward = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in inputs)
        self.back = nn.ModuleList(nn.GRU(size, width, batch_first=True) for size in inputs)
        self.begin = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """States `(rows, tokens, 2 x width)`, and what the decoder begins with, `(rows, width)`.

        Args:
            vectors: `(rows, tokens, width)`, of which `counted` are real.
        """
        turned = turn_around(counted)
        states = vectors
        for onward, back in zip(self.onward, self.back, strict=True):
            there = onward(states)[0]
            again = take_places(back(take_places(states, turned))[0], turned)
            states = self.dropout(torch.cat([there, again], 2))
        real = counted[..., None].to(states.dtype)
        return states, torch.tanh(self.begin((states * real).sum(1) / real.sum(1)))


class Additive(nn.Module):
    """How well a query fits a state: a perceptron of both (Bahdanau et al. 2015)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key, self.query = nn.Linear(2 * width, width), nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores `(rows, queries, tokens)` of `(rows, queries, width)` and `(rows, tokens, width)`."""
        fits: Tensor = self.score(torch.tanh(self.query(queries)[:, :, None] + keys[:, None]))[..., 0]
        return fits


class Multiplicative(nn.Module):
    """The product of a query and a state in its own space: "general" of Luong et al. 2015."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(2 * width, width, bias=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """As `Additive`."""
        return queries @ keys.transpose(1, 2)


class RecurrentTranslator(nn.Module):
    """Encoder, decoder, and how both are used in training and in writing."""

    def __init__(
        self,
        *,
        attention: str,
        vocabulary: int,
        width: int,
        depth: int,
        dropout: float,
        padding: int,
        end: int,
    ) -> None:
        super().__init__()
        self.padding, self.end, self.depth = padding, end, depth
        self.vectors = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.vectors.weight, std=width**-0.5)
        self.encoder = Encoder(width, depth=depth, dropout=dropout)
        self.looks_first = attention == "bahdanau"
        if self.looks_first:
            self.attend: nn.Module = Additive(width)
            self.cell = nn.GRUCell(3 * width, width)
            self.merge = nn.Linear(4 * width, width)
        else:
            self.attend = Multiplicative(width)
            self.decoder = nn.GRU(width, width, num_layers=depth, batch_first=True)
            self.merge = nn.Linear(3 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, rows: Tensor) -> Tensor:
        """Logits `(rows, most marks, vocabulary)` of what follows each mark of `rows` `(rows, tokens)`."""
        source, given = split_rows(rows, self.padding)
        return self._decide(self._foresee(source, given)[0])

    def attention(self, rows: Tensor) -> Tensor:
        """How much each written token looks at each of its source, `(rows, most marks, longest source)`."""
        source, given = split_rows(rows, self.padding)
        return self._foresee(source, given)[1]

    def _foresee(self, source: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """What the output is made of, `(rows, tokens, width)`, and the attention."""
        (counted, states, keys), (past,) = self.read(source)
        vectors = self._embed(given)
        if not self.looks_first:
            hidden, _ = self.decoder(vectors, past.transpose(0, 1).contiguous())
            return self._look(self.dropout(hidden), states, keys, counted)
        state, made, shares = past, [], []
        for vector in vectors.unbind(1):
            merged, state, share = self._go_on(vector, state, states, keys, counted)
            made.append(merged)
            shares.append(share)
        return torch.cat(made, 1), torch.cat(shares, 1)

    def _embed(self, tokens: Tensor) -> Tensor:
        # The table is the output's too, whose rows have a length of about 1: an input wants numbers about 1.
        vectors: Tensor = self.dropout(self.vectors(tokens) * self.vectors.embedding_dim**0.5)
        return vectors

    def _find(self, queries: Tensor, states: Tensor, keys: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        """What `(rows, queries, width)` see, `(rows, queries, 2 x width)`, and their shares of attention."""
        scores = self.attend(queries, keys)
        hidden = scores.masked_fill(~counted[:, None], float(torch.finfo(scores.dtype).min))
        shares = hidden.softmax(-1)
        return shares @ states, shares

    def _look(self, hidden: Tensor, states: Tensor, keys: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        seen, shares = self._find(hidden, states, keys, counted)
        return self.dropout(torch.tanh(self.merge(torch.cat([hidden, seen], 2)))), shares

    def _go_on(
        self, vector: Tensor, state: Tensor, states: Tensor, keys: Tensor, counted: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Bahdanau's step of `(rows x hypotheses, width)`: output, new state, attention."""
        rows = len(states)
        seen, shares = self._find(state.view(rows, -1, state.shape[1]), states, keys, counted)
        new = self.cell(torch.cat([vector, seen.flatten(0, 1)], 1), state)
        parts = [new.view(rows, -1, new.shape[1]), vector.view(rows, -1, vector.shape[1]), seen]
        return self.dropout(torch.tanh(self.merge(torch.cat(parts, 2)))), new, shares

    def _decide(self, merged: Tensor) -> Tensor:
        return F.linear(merged, self.vectors.weight, self.bias)

    def read(self, source: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Which tokens count, the encoder's states, their keys; the decoder's first state."""
        counted = source != self.padding
        states, begun = self.encoder(self._embed(source), counted)
        keys = self.attend.key(states)  # type: ignore[operator]
        past = begun if self.looks_first else begun[:, None].repeat(1, self.depth, 1)
        return [counted, states, keys], [past]

    def advance(
        self, tokens: Tensor, memory: list[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Seq2Seq`."""
        counted, states, keys = memory
        vector = self._embed(tokens)
        if self.looks_first:
            merged, state, _ = self._go_on(vector, past[0], states, keys, counted)
            return self._decide(merged).flatten(0, 1), [state]
        hidden, state = self.decoder(vector[:, None], past[0].transpose(0, 1).contiguous())
        merged, _ = self._look(hidden.view(len(states), -1, hidden.shape[2]), states, keys, counted)
        return self._decide(merged).flatten(0, 1), [state.transpose(0, 1)]


def build_model(
    *, attention: str, vocabulary: int, width: int, depth: int, dropout: float, padding: int, end: int
) -> RecurrentTranslator:
    """The network, with fresh weights from torch's present random state.

    Args:
        attention: bahdanau or luong.
        vocabulary: tokens of both sides.
        width: of a token's vector, and of the states in each direction.
        depth: layers of the encoder, and of Luong's decoder; Bahdanau's has one.
        padding: the token that fills up.
        end: the token that ends a side.
    """
    return RecurrentTranslator(
        attention=attention,
        vocabulary=vocabulary,
        width=width,
        depth=depth,
        dropout=dropout,
        padding=padding,
        end=end,
    )
