"""Residual networks for small pictures (He et al. 2016): ResNet-20 as for CIFAR-10, and ResNet-18.

This file imports only torch: a copy of it travels with every exported model as `modeling.py`.

    images 0..1 → conv 3x3 → stages of blocks of two convolutions, halved between → mean → linear
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STAGES = {18: ((64, 2), (128, 2), (256, 2), (512, 2)), 20: ((16, 3), (32, 3), (64, 3))}
"""Channels and blocks of each stage; section 4.2 of the paper for 20, table 1 for 18."""
_LARGE = 64
"""Pictures from this side on are first brought to a quarter of it, as the paper does for ImageNet."""


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride > 1 or inputs != outputs
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if changes
            else nn.Identity()
        )

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, outputs, height / stride, width / stride)`."""
        filtered: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images)))))
        return F.relu(filtered + self.downsample(images))


class ResNet(nn.Module):
    """A stem, stages of blocks, a linear head."""

    def __init__(self, *, channels: int, classes: int, dropout: float, depth: int, large: bool) -> None:
        super().__init__()
        stages = _STAGES[depth]
        first = stages[0][0]
        self.stem = nn.Sequential(
            nn.Conv2d(channels, first, 7, 2, 3, bias=False)
            if large
            else nn.Conv2d(channels, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity(),
        )
        blocks, inputs = [], first
        for stage, (outputs, count) in enumerate(stages):
            for number in range(count):
                blocks.append(BasicBlock(inputs, outputs, stride=2 if stage and not number else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `images` `(batch, channels, height, width)` in 0..1."""
        return self.decide(self.encode(images))

    def encode(self, inputs: Tensor) -> Tensor:
        """What the head sees, `(batch, channels of the last stage)`."""
        features: Tensor = self.pool(self.blocks(self.stem(inputs)))
        return features

    def decide(self, features: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `encode`'s result."""
        logits: Tensor = self.classifier(features)
        return logits

    def head_names(self) -> list[str]:
        """The modules of `decide`."""
        return ["classifier"]

    def chain(self) -> list[str]:
        """The modules whose application one after the other is `forward`: a pipeline cuts between them."""
        return ["stem", *(f"blocks.{number}" for number in range(len(self.blocks))), "pool", "classifier"]


def build_model(
    *, channels: int, height: int, width: int, classes: int, dropout: float, depth: int
) -> nn.Module:
    """The network, with fresh weights from torch's present random state.

    Args:
        height: pictures from 64 pixels on get a stem that brings them to a quarter.
        width: likewise, the smaller of both decides.
        depth: layers, 18 or 20.
    """
    if min(height, width) < 8:
        raise ValueError(f"pictures of {height}x{width} are smaller than 8x8")
    large = min(height, width) >= _LARGE
    return ResNet(channels=channels, classes=classes, dropout=dropout, depth=depth, large=large).to(
        torch.float32
    )
