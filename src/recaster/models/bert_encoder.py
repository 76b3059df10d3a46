"""The BERT encoder (Devlin et al. 2019) in torch alone, with the names and the numbers of its published form.

pieces (rows, pieces) → embeddings → blocks x depth → (rows, pieces, width)

This file imports only torch: its text travels with the exported models that use it, which are then read
without the transformers library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class BertEmbeddings(nn.Module):
    """Of pieces, their places and the one segment, summed and normalised."""

    def __init__(self, size: Mapping[str, Any]) -> None:
        super().__init__()
        width = size["width"]
        self.word_embeddings = nn.Embedding(size["vocabulary"], width)
        self.position_embeddings = nn.Embedding(size["places"], width)
        self.token_type_embeddings = nn.Embedding(size["segments"], width)
        self.LayerNorm = nn.LayerNorm(width, eps=size["epsilon"])
        self.dropout = nn.Dropout(size["dropout"])

    def forward(self, pieces: Tensor) -> Tensor:
        """`(rows, pieces, width)` of piece numbers `(rows, pieces)`."""
        summed = self.word_embeddings(pieces) + self.position_embeddings.weight[: pieces.shape[1]]
        vectors: Tensor = self.dropout(self.LayerNorm(summed + self.token_type_embeddings.weight[0]))
        return vectors


class BertBlock(nn.Module):
    """Self-attention and a perceptron, each followed by a residual and a normalisation."""

    def __init__(self, size: Mapping[str, Any]) -> None:
        super().__init__()
        width, epsilon = size["width"], size["epsilon"]
        self.heads = size["heads"]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attended = nn.Linear(width, width)
        self.attended_norm = nn.LayerNorm(width, eps=epsilon)
        self.inner = nn.Linear(width, size["inner"])
        self.outer = nn.Linear(size["inner"], width)
        self.outer_norm = nn.LayerNorm(width, eps=epsilon)
        self.dropout = nn.Dropout(size["dropout"])
        self.attention_dropout = float(size["dropout"])

    def forward(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """`(rows, pieces, width)` to the same shape.

        Args:
            seen: which pieces may be looked at, `(rows, 1, 1, pieces)`.
        """
        query, key, value = (
            part(hidden).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        dropped = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=dropped)
        attended = self.dropout(self.attended(mixed.transpose(1, 2).flatten(2)))
        hidden = self.attended_norm(hidden + attended)
        outer = self.dropout(self.outer(F.gelu(self.inner(hidden))))
        result: Tensor = self.outer_norm(hidden + outer)
        return result


class BertEncoder(nn.Module):
    """Embeddings and blocks."""

    def __init__(self, size: Mapping[str, Any]) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(size)
        self.blocks = nn.ModuleList(BertBlock(size) for _ in range(size["depth"]))

    def forward(self, pieces: Tensor, counted: Tensor) -> Tensor:
        """`(rows, pieces, width)` of piece numbers and of which are real, both `(rows, pieces)`."""
        hidden: Tensor = self.embeddings(pieces)
        for block in self.blocks:
            hidden = block(hidden, counted[:, None, None])
        return hidden


_PLACES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attended",
    "attention.output.LayerNorm": "attended_norm",
    "intermediate.dense": "inner",
    "output.dense": "outer",
    "output.LayerNorm": "outer_norm",
}


def rename_published(name: str) -> str | None:
    """The name here of a tensor that a published BERT calls `name`; None of one that is not used."""
    inner = name.removeprefix("bert.")
    if inner.startswith("embeddings."):
        return None if inner.endswith("position_ids") else inner
    if not inner.startswith("encoder.layer."):
        return None
    number, _, rest = inner.removeprefix("encoder.layer.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"blocks.{number}.{_PLACES[part]}.{kind}" if part in _PLACES else None


def read_size(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `BertEncoder` takes, of a published configuration."""
    return {
        "vocabulary": config["vocab_size"],
        "places": config["max_position_embeddings"],
        "segments": config["type_vocab_size"],
        "width": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "inner": config["intermediate_size"],
        "epsilon": config["layer_norm_eps"],
        "dropout": config["hidden_dropout_prob"],
    }
