"""A text classifier over a sentence encoder: the mean of what it makes of each token, and a linear head.

pieces (rows, pieces) → BERT's blocks → mean over the real pieces (rows, width) → dropout → (rows, labels)

Sentence encoders are trained for that mean (Reimers and Gurevych 2019); heads of the transformers library see
the first piece alone. This file imports only torch and its siblings: a copy of it travels with every exported
model as `modeling.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from recaster.models.bert_encoder import BertEncoder


class SentenceClassifier(nn.Module):
    """A BERT encoder, the mean over its pieces, and a head."""

    def __init__(self, *, size: Mapping[str, Any], labels: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.encoder = BertEncoder(size)
        self.dropout = nn.Dropout(size["dropout"])
        self.head = nn.Linear(size["width"], labels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `(rows, labels)` of token numbers `(rows, tokens)`, filled up with the padding token."""
        return self.decide(self.encode(tokens))

    def encode(self, inputs: Tensor) -> Tensor:
        """The mean over the real tokens, `(rows, width)`."""
        counted = inputs != self.padding
        weights = counted.unsqueeze(2).to(self.head.weight.dtype)
        mean: Tensor = (self.encoder(inputs, counted) * weights).sum(1) / weights.sum(1).clamp(min=1)
        return mean

    def decide(self, features: Tensor) -> Tensor:
        """Logits `(rows, labels)` of `encode`'s result."""
        logits: Tensor = self.head(self.dropout(features))
        return logits

    def head_names(self) -> list[str]:
        """The modules that are trained whole beside adapters."""
        return ["head"]

    def layers(self) -> list[str]:
        """Names of the modules that count as layers, from the input on."""
        blocks = [f"encoder.blocks.{number}" for number in range(len(self.encoder.blocks))]
        return ["encoder.embeddings", *blocks, "head"]

    def adapter_targets(self) -> list[str]:
        """What LoRA's updates go beside: queries and values, as its paper has it."""
        return ["query", "value"]


def build_model(*, size: Mapping[str, Any], labels: int, padding: int) -> SentenceClassifier:
    """The network, with fresh weights from torch's present random state.

    Args:
        size: of `bert_encoder.BertEncoder`.
        padding: the token that fills rows up.
    """
    return SentenceClassifier(size=size, labels=labels, padding=padding)
