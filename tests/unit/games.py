"""Rows of a game between two networks, for its tests."""

from __future__ import annotations

import torch
from torch import Tensor

from recaster.models.game_rows import CHANCES, GameRows, join_rows


def make_rows(count: int, *, noise: int, shape: tuple[int, int, int]) -> Tensor:
    """`(count, columns)` of random pictures of `shape` in 0..1, of three classes; the same each time."""
    torch.manual_seed(2)
    rows = GameRows(
        noise=torch.randn(count, noise),
        chances=torch.rand(count, CHANCES),
        classes=torch.arange(count) % 3,
        pictures=torch.rand(count, *shape),
    )
    return join_rows(rows)
