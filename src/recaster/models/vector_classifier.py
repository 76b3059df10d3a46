"""A text classifier over the mean of word vectors: the baseline that every larger one must beat.

This file imports only torch: a copy of it travels with every exported model as `modeling.py`.

    (rows, tokens) → vectors → mean over tokens → linear → tanh → linear → (rows, labels)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VectorClassifier(nn.Module):
    """Vectors of a vocabulary, their mean a text, and a small network over it."""

    def __init__(self, *, vocabulary: int, width: int, labels: int, padding: int, dropout: float) -> None:
        super().__init__()
        self.padding = padding
        self.vectors = nn.Embedding(vocabulary, width)
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, labels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(rows, labels)` of token numbers `(rows, tokens)`, filled up with the padding token."""
        return self.decide(self.encode(tokens))

    def encode(self, inputs: Tensor) -> Tensor:
        """The mean vector of each text, `(rows, width)`; zero for one without tokens."""
        counted = (inputs != self.padding).to(self.vectors.weight.dtype)[..., None]
        total = (self.vectors(inputs) * counted).sum(1)
        mean: Tensor = total / counted.sum(1).clamp(min=1)
        return mean

    def decide(self, features: Tensor) -> Tensor:
        """Logits `(rows, labels)` of `encode`'s result."""
        logits: Tensor = self.head(features)
        return logits

    def head_names(self) -> list[str]:
        """The modules of `decide`."""
        return ["head"]


def build_model(
    *, vocabulary: int, width: int, labels: int, padding: int, dropout: float
) -> VectorClassifier:
    """The network, with fresh weights from torch's present random state.

    Args:
        vocabulary: tokens that have a vector.
        width: of a vector.
        padding: the token that fills rows up.
    """
    return VectorClassifier(
        vocabulary=vocabulary, width=width, labels=labels, padding=padding, dropout=dropout
    ).to(torch.float32)
