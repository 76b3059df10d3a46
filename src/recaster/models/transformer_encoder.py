"""A small pre-norm transformer encoder over tokens (Xiong et al. 2020), with a label a row.

This file imports only torch: a copy of it can travel with an exported model as `modeling.py`.

    (batch, tokens) ids → embed → blocks x depth → norm → mean over tokens → (batch, classes)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Embedding(nn.Module):
    """Token and position vectors, summed."""

    def __init__(self, *, vocabulary: int, tokens: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors `(batch, tokens, width)` of `ids` `(batch, tokens)`."""
        vectors: Tensor = self.token(ids) + self.position[: ids.shape[1]]
        return vectors


class Attention(nn.Module):
    """Multi-head self-attention over all tokens of a row."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.query = nn.Linear(width, width)
        # A bias of the keys moves all scores of a query alike, so softmax takes it out again.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(batch, tokens, width)` to the same shape."""
        query, key, value = (
            self._split_heads(project(hidden)) for project in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        merged: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return merged

    def _split_heads(self, projected: Tensor) -> Tensor:
        # The number of heads is what the width holds: under tensor parallelism a rank has a part of them.
        heads: Tensor = projected.unflatten(-1, (-1, self.head_width))
        return heads.transpose(1, 2)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each with normalisation before and a residual around."""

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width=width, heads=heads)
        self.perceptron_norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        # Only on what all ranks of a tensor group hold whole, so that they drop the same.
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(batch, tokens, width)` to the same shape."""
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden)))
        inner = F.gelu(self.up(self.perceptron_norm(hidden)))
        result: Tensor = hidden + self.dropout(self.down(inner))
        return result


class Head(nn.Module):
    """Normalise, average over tokens, classify."""

    def __init__(self, *, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `(batch, tokens, width)`."""
        logits: Tensor = self.classify(self.norm(hidden).mean(1))
        return logits


class TransformerEncoder(nn.Module):
    """Embedding, blocks and head in a row."""

    def __init__(
        self,
        *,
        vocabulary: int,
        tokens: int,
        classes: int,
        width: int,
        heads: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.embed = Embedding(vocabulary=vocabulary, tokens=tokens, width=width)
        self.blocks = nn.ModuleList(Block(width=width, heads=heads, dropout=dropout) for _ in range(depth))
        self.head = Head(width=width, classes=classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `(batch, classes)` of token ids `(batch, tokens)`; all tokens of a row count."""
        hidden = self.embed(ids)
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.head(hidden)
        return logits

    def chain(self) -> list[str]:
        """The modules whose application one after the other is `forward`: a pipeline cuts between them."""
        return ["embed", *(f"blocks.{number}" for number in range(len(self.blocks))), "head"]

    def tensor_plan(self, ranks: int) -> dict[str, object]:
        """How `ranks` ranks share each layer, as `parallelize_module` wants it (Shoeybi et al. 2019).

        Raises:
            ValueError: the heads cannot be shared out evenly.
        """
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

        if self.heads % ranks:
            raise ValueError(f"{self.heads} heads cannot be shared by {ranks} ranks")
        return {
            "blocks.*.attention.query": ColwiseParallel(),
            "blocks.*.attention.key": ColwiseParallel(),
            "blocks.*.attention.value": ColwiseParallel(),
            "blocks.*.attention.out": RowwiseParallel(),
            "blocks.*.up": ColwiseParallel(),
            "blocks.*.down": RowwiseParallel(),
        }


def build_model(
    *, vocabulary: int, tokens: int, classes: int, width: int, heads: int, depth: int, dropout: float
) -> nn.Module:
    """The network, with fresh weights from torch's present random state.

    Args:
        vocabulary: number of token ids.
        tokens: longest row.
        width: of a token's vector, a multiple of `heads`.
        depth: number of blocks.
    """
    if width % heads:
        raise ValueError(f"width must be a multiple of heads: {width} is not one of {heads}")
    return TransformerEncoder(
        vocabulary=vocabulary,
        tokens=tokens,
        classes=classes,
        width=width,
        heads=heads,
        depth=depth,
        dropout=dropout,
    )
