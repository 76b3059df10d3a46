"""What the two players of a GAN share: sizes by halving, and a class or noise that steers a layer.

This file imports only torch: it travels with exported generators as a part of their `modeling.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST, _LARGEST_START = 4, 8
_MOST_GROUPS, _LEAST_CHANNELS = 8, 4
"""Of a group: normalised alone, a channel could not say how strong it is."""


def count_halvings(height: int, width: int) -> int:
    """How often both sides can be halved down to 4 pixels or to an odd number.

    Raises:
        ValueError: what is left is larger than 8 pixels, from where a generator would begin.
    """
    halvings, sides = 0, (height, width)
    while all(side % 2 == 0 and side // 2 >= _SMALLEST for side in sides):
        sides = (sides[0] // 2, sides[1] // 2)
        halvings += 1
    if max(sides) > _LARGEST_START:
        raise ValueError(
            f"pictures of {height}x{width} cannot be halved to at most {_LARGEST_START} pixels a side; "
            "use sides such as 28, 32, 48, 64"
        )
    return halvings


class SteeredNorm(nn.Module):
    """Group normalisation whose scale and shift are a function of the noise and the class.

    By picture, not by batch: what a picture becomes must not depend on the others beside it, else ranks and
    micro-batches would change the result. Source: Chen et al., "On self modulation for generative
    adversarial networks", ICLR 2019.
    """

    def __init__(self, channels: int, steering: int) -> None:
        super().__init__()
        most = min(_MOST_GROUPS, max(1, channels // _LEAST_CHANNELS))
        groups = next(count for count in range(most, 0, -1) if channels % count == 0)
        self.normalise = nn.GroupNorm(groups, channels, affine=False)
        self.steer = nn.Linear(steering, 2 * channels)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, features: Tensor, steering: Tensor) -> Tensor:
        """`features` `(batch, channels, height, width)`, normalised and steered by `(batch, steering)`."""
        scale, shift = self.steer(steering)[:, :, None, None].chunk(2, 1)
        steered: Tensor = self.normalise(features) * (1 + scale) + shift
        return steered


class GrowingBlock(nn.Module):
    """Twice the size: two convolutions beside a 1x1 convolution (Miyato et al. 2018, table 4)."""

    def __init__(self, inputs: int, outputs: int, steering: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = SteeredNorm(inputs, steering), SteeredNorm(outputs, steering)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor, steering: Tensor) -> Tensor:
        """`(batch, outputs, 2 height, 2 width)`."""
        grown = F.interpolate(F.relu(self.norm1(features, steering)), scale_factor=2.0, mode="nearest")
        grown = self.conv2(F.relu(self.norm2(self.conv1(grown), steering)))
        # A 1x1 convolution and copying pixels may change places: this order is a quarter of the work.
        beside = F.interpolate(self.shortcut(features), scale_factor=2.0, mode="nearest")
        total: Tensor = grown + beside
        return total


class TransposedStage(nn.Module):
    """Twice the size by one transposed convolution (Radford et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, steering: int) -> None:
        super().__init__()
        self.norm = SteeredNorm(inputs, steering)
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, padding=1)

    def forward(self, features: Tensor, steering: Tensor) -> Tensor:
        """`(batch, outputs, 2 height, 2 width)`."""
        grown: Tensor = self.conv(F.relu(self.norm(features, steering)))
        return grown


def start_orthogonally(model: nn.Module) -> None:
    """First weights of convolutions and linear layers, but those that start at zero (Brock et al. 2019)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and torch.any(module.weight != 0):
            nn.init.orthogonal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
