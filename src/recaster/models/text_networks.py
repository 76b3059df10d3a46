"""Text classifiers over word vectors that are not transformers: a convolutional and two recurrent networks.

This file imports only torch and its siblings: a copy of it travels with exported models as `modeling.py`.

    kim-cnn      tokens → vectors → convolutions over 3, 4 and 5 tokens → largest of each → linear
    lstm, gru    tokens → vectors → both directions, layer by layer → attention over tokens → linear

What fills a row up changes nothing: a text is answered alike whatever stands beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.reversed_rows import take_places, turn_around

_WIDTHS, _FILTERS = (3, 4, 5), 100
"""Tokens that a filter spans, and filters of each width (Kim 2014)."""


class TextNetwork(nn.Module):
    """Word vectors, a body that makes one vector of a text, and a linear head."""

    def __init__(
        self,
        body: nn.Module,
        *,
        vocabulary: int,
        width: int,
        features: int,
        labels: int,
        padding: int,
        channels: str,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.vectors = nn.Embedding(vocabulary, width)
        # As Kim (2014): torch's own deviation of 1 would drown what few rows of data can teach.
        nn.init.uniform_(self.vectors.weight, -0.25, 0.25)
        self.fixed = nn.Embedding(vocabulary, width) if channels == "multichannel" else None
        for table in (self.vectors if channels == "static" else None, self.fixed):
            if table is not None:
                table.weight.requires_grad_(False)
        self.body = body
        self.head = nn.Linear(features, labels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(rows, labels)` of token numbers `(rows, tokens)`, filled up with the padding token."""
        return self.decide(self.encode(tokens))

    def encode(self, inputs: Tensor) -> Tensor:
        """What the head sees, `(rows, features)`."""
        counted = inputs != self.padding
        vectors = self.vectors(inputs)
        if self.fixed is not None:  # filters are linear: over the sum is the sum over both
            vectors = vectors + self.fixed(inputs)
        features: Tensor = self.body(vectors * counted[..., None], counted)
        return features

    @torch.no_grad()
    def begin_with(self, table: Tensor, known: Tensor) -> None:
        """Take over the vectors of known words; the others get random ones of the same variance (Kim 2014).

        Args:
            table: `(vocabulary, width)`.
            known: `(vocabulary,)` bool.
        """
        bound = (3.0 * table[known].var()).sqrt().item()
        fresh = torch.empty_like(table).uniform_(-bound, bound)
        self.vectors.weight.copy_(torch.where(known[:, None], table, fresh))
        if self.fixed is not None:
            self.fixed.weight.copy_(self.vectors.weight)

    def decide(self, features: Tensor) -> Tensor:
        """Logits `(rows, labels)` of `encode`'s result."""
        logits: Tensor = self.head(features)
        return logits

    def head_names(self) -> list[str]:
        """The modules of `decide`."""
        return ["head"]


class Convolutions(nn.Module):
    """The largest answer of each filter anywhere in the text (Kim 2014)."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv1d(width, _FILTERS, span, padding=span - 1) for span in _WIDTHS)
        self.dropout = nn.Dropout(dropout)
        self.features = _FILTERS * len(_WIDTHS)

    def forward(self, vectors: Tensor, counted: Tensor) -> Tensor:
        """`(rows, 300)` of `vectors` `(rows, tokens, width)`, of which `counted` are real."""
        found = []
        for span, layer in zip(_WIDTHS, self.filters, strict=True):
            answers = F.relu(layer(vectors.transpose(1, 2)))
            # Windows that touch a real token, and one beyond: those of nothing but filling up are left out.
            reached = F.pad(counted, (span - 1, 0), value=True)
            found.append(answers.masked_fill(~reached[:, None], 0.0).amax(2))
        features: Tensor = self.dropout(torch.cat(found, 1))
        return features


class Recurrent(nn.Module):
    """Both directions over the text, layer by layer, and attention over all tokens (Zhou et al. 2016)."""

    def __init__(self, width: int, *, kind: str, depth: int, dropout: float) -> None:
        super().__init__()
        cell = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        inputs = [width, *[2 * width] * (depth - 1)]
        self.onward = nn.ModuleList(cell(size, width, batch_first=True) for size in inputs)
        self.backward_ = nn.ModuleList(cell(size, width, batch_first=True) for size in inputs)
        self.attend = nn.Sequential(nn.Linear(2 * width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))
        self.dropout = nn.Dropout(dropout)
        self.features = 2 * width

    def forward(self, vectors: Tensor, counted: Tensor) -> Tensor:
        """`(rows, 2 x width)` of `vectors` `(rows, tokens, width)`, of which `counted` are real."""
        turned = turn_around(counted)
        states = vectors
        for onward, backward in zip(self.onward, self.backward_, strict=True):
            states = self.dropout(states)
            there = onward(states)[0]
            # The real tokens in reverse, so that what fills up still comes last.
            back = backward(take_places(states, turned))[0]
            states = torch.cat([there, take_places(back, turned)], 2)
        scores = self.attend(states)[..., 0].masked_fill(~counted, float(torch.finfo(states.dtype).min))
        features: Tensor = self.dropout((scores.softmax(1)[..., None] * states).sum(1))
        return features


def build_model(
    *,
    network: str,
    vocabulary: int,
    width: int,
    depth: int,
    labels: int,
    padding: int,
    dropout: float,
    channels: str = "tuned",  # artifacts of before there was a choice do not say
) -> TextNetwork:
    """The network, with fresh weights from torch's present random state.

    Args:
        network: kim-cnn, lstm or gru.
        vocabulary: tokens that have a vector.
        width: of a vector, and of the states in each direction.
        depth: layers of lstm and gru.
        padding: the token that fills rows up, at their end.
        channels: tuned; static: vectors are not trained; multichannel: a second table is not.
    """
    if network == "kim-cnn":
        body: Convolutions | Recurrent = Convolutions(width, dropout=dropout)
    else:
        body = Recurrent(width, kind=network, depth=depth, dropout=dropout)
    return TextNetwork(
        body,
        vocabulary=vocabulary,
        width=width,
        features=body.features,
        labels=labels,
        padding=padding,
        channels=channels,
    )
