"""Generators of GANs: noise, and a class where it is conditional, in; a picture out.

This file and what it shares import only torch: they travel with every exported model as `modeling.py`.

    noise, class → linear → small map → stages of twice the size → conv 3x3 → picture in 0..1

`dcgan` grows by transposed convolutions (Radford et al. 2016), `resnet` by residual blocks (Miyato et al.
2018).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.generator_layers import (
    GrowingBlock,
    SteeredNorm,
    TransposedStage,
    count_halvings,
    start_orthogonally,
)


class Generator(nn.Module):
    """Noise, with a class, to pictures."""

    def __init__(
        self,
        *,
        architecture: str,
        channels: int,
        height: int,
        width: int,
        hidden: int,
        noise: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.noise, self.classes = noise, classes
        stages = count_halvings(height, width)
        self.start = (height >> stages, width >> stages)
        # As wide where pictures are small as the cost of a stage allows; residual blocks keep one width.
        widths = [
            hidden if architecture == "resnet" else hidden * min(4, 2**left) for left in range(stages, -1, -1)
        ]
        steering = noise
        if classes:
            self.class_vectors = nn.Embedding(classes, noise)
            steering = 2 * noise
        self.begin = nn.Linear(steering, widths[0] * self.start[0] * self.start[1])
        block = GrowingBlock if architecture == "resnet" else TransposedStage
        self.stages = nn.ModuleList(block(inputs, outputs, steering) for inputs, outputs in pairwise(widths))
        self.norm = SteeredNorm(widths[-1], steering)
        self.to_pixels = nn.Conv2d(widths[-1], channels, 3, padding=1)
        start_orthogonally(self)

    def forward(self, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        """Pictures `(batch, channels, height, width)` in 0..1.

        Args:
            noise: `(batch, noise)`, standard normal.
            classes: `(batch,)` numbers; of a conditional generator.
        """
        steering = torch.cat([noise, self.class_vectors(classes)], 1) if self.classes else noise
        features = self.begin(steering).unflatten(1, (-1, *self.start))
        for stage in self.stages:
            features = stage(features, steering)
        pictures: Tensor = torch.sigmoid(self.to_pixels(F.relu(self.norm(features, steering))))
        return pictures


def build_model(
    *,
    architecture: str,
    channels: int,
    height: int,
    width: int,
    hidden: int,
    noise: int,
    classes: int,
) -> nn.Module:
    """The generator, with fresh weights from torch's present random state.

    Args:
        architecture: `dcgan` or `resnet`.
        hidden: channels of the last stage; dcgan has up to four times as many before.
        noise: numbers that go in.
        classes: 0 for one that is not conditional.

    Raises:
        ValueError: the pictures' sides cannot be reached by doubling.
    """
    return Generator(
        architecture=architecture,
        channels=channels,
        height=height,
        width=width,
        hidden=hidden,
        noise=noise,
        classes=classes,
    ).to(torch.float32)
