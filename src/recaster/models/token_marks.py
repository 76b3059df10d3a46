"""Where the marked tokens (`~number`) of rows stand: what follows them is learned, and gets logits."""

from __future__ import annotations

import torch
from torch import Tensor


def place_marks(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens without marks `(rows, tokens)`, and where these were `(rows, most marks)`.

    The places of a row with fewer marks are filled up with others; without a mark all are chosen.
    """
    marked = tokens < 0
    most = int(marked.sum(1).max()) or tokens.shape[1]
    chosen = (~marked).byte().argsort(dim=1, stable=True)[:, :most]
    return torch.where(marked, ~tokens, tokens), chosen
