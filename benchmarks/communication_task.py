"""What the ranks of the communication benchmark train: intents of CLINC150 by a deep averaging network.

"what is the name of the 13th president" → its words and word pairs as numbers → 150 intents

Larson et al. 2019; Iyyer et al. 2015. About 10 M parameters and little to compute, so that the wire is what
counts.
"""

from __future__ import annotations

import json
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

_ROWS_OF_TABLE, _WIDTH, _HIDDEN, _TOKENS = 20_000, 256, 2048, 32
HELD_OUT = 1500


class DeepAveragingNetwork(nn.Module):
    """The mean of the tokens' vectors through two hidden layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(_ROWS_OF_TABLE, _WIDTH, mode="mean", padding_idx=0)
        self.layers = nn.Sequential(
            nn.LayerNorm(_WIDTH),
            nn.Linear(_WIDTH, _HIDDEN),
            nn.GELU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.GELU(),
            nn.Linear(_HIDDEN, classes),
        )

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `(rows, classes)` of token ids `(rows, tokens)`, 0 where a row is shorter."""
        logits: Tensor = self.layers(self.table(ids))
        return logits


class Sentences:
    """Sentences as token ids, in memory."""

    uniform = True
    lengths = None

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [str(row) for row in rows]

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return self.inputs[rows], self.targets[rows]


def read_task(folder: Path) -> tuple[Sentences, Sentences, int]:
    """Training and held-out sentences of CLINC150 in scope, and how many intents there are."""
    content = json.loads((folder / "clinc150" / "data_full.json").read_text())
    labels = sorted({label for _, label in content["train"]})
    held_out = [pair for number, pair in enumerate(content["val"]) if number % (3000 // HELD_OUT) == 0]
    return _to_tensors(content["train"], labels), _to_tensors(held_out, labels), len(labels)


def _to_tensors(pairs: list[list[str]], labels: list[str]) -> Sentences:
    number = {label: index for index, label in enumerate(labels)}
    inputs = torch.zeros(len(pairs), _TOKENS, dtype=torch.int64)
    for row, (text, _) in enumerate(pairs):
        words = text.lower().split()
        tokens = [*words, *(f"{one} {two}" for one, two in pairwise(words))]
        # crc32, since Python's own hash differs from process to process
        found = [1 + zlib.crc32(token.encode()) % (_ROWS_OF_TABLE - 1) for token in tokens[:_TOKENS]]
        inputs[row, : len(found)] = torch.tensor(found)
    return Sentences(inputs, torch.tensor([number[label] for _, label in pairs]))


def build_model(classes: int) -> nn.Module:
    torch.manual_seed(5)
    return DeepAveragingNetwork(classes)


def loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum")
