"""A small convolutional network for small pictures.

This file imports only torch: a copy of it travels with every exported model as `modeling.py`.

    (batch, channels, height, width) → conv 3x3 ×2 → pool → conv 3x3 → pool → linear → (batch, classes)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky-relu": nn.LeakyReLU,
    "mish": nn.Mish,
}


class SmallCnn(nn.Module):
    """Three convolutions with batch-independent normalisation and a linear head."""

    def __init__(self, *, channels: int, classes: int, hidden: int, dropout: float, activation: str) -> None:
        super().__init__()
        activate = _ACTIVATIONS[activation]
        # Group rather than batch normalisation: the result does not depend on how ranks share a batch.
        self.features = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.GroupNorm(4, hidden),
            activate(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.GroupNorm(4, hidden),
            activate(),
            nn.MaxPool2d(2),
            nn.Conv2d(hidden, 2 * hidden, 3, padding=1),
            nn.GroupNorm(4, 2 * hidden),
            activate(),
            nn.AdaptiveMaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(8 * hidden, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `images` `(batch, channels, height, width)` in 0..1."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def chain(self) -> list[str]:
        """The modules whose application one after the other is `forward`: a pipeline cuts between them."""
        return [*(f"features.{number}" for number in range(len(self.features))), "head"]


def build_model(
    *,
    channels: int,
    height: int,
    width: int,
    classes: int,
    hidden: int,
    dropout: float,
    activation: str,
) -> nn.Module:
    """The network, with fresh weights from torch's present random state.

    Args:
        height: unused by the pooled network, but part of every picture model's arguments.
        width: likewise.
        hidden: channels of the first convolution, a multiple of 4.
        activation: what follows each convolution: relu, gelu, silu, elu, leaky-relu or mish.
    """
    if hidden % 4:
        raise ValueError(f"hidden must be a multiple of 4, not {hidden}")
    if min(height, width) < 4:
        raise ValueError(f"pictures of {height}x{width} are smaller than 4x4")
    return SmallCnn(
        channels=channels, classes=classes, hidden=hidden, dropout=dropout, activation=activation
    ).to(torch.float32)
