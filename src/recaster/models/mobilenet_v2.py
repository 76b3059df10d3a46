"""MobileNetV2 (Sandler et al. 2018): inverted residuals with linear bottlenecks.

This file and what it shares import only torch: they travel with every exported model as `modeling.py`.
Parameters have the names of torchvision's published weights, so that these load as they are.

    images 0..1 → resize, normalise → conv 3x3 /2 → 17 inverted residuals → conv 1x1 → mean → 1280 → linear
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from recaster.models.mobilenet_v2_layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MOBILENET_BLOCKS,
    ConvBnRelu,
    build_mobilenet_layers,
)
from recaster.models.picture_input import (
    Preprocess,
    check_pictures,
    one_pixel_convolutions,
    start_convolutions,
)

_LAST = 1280


class MobileNetV2(nn.Module):
    """The network at width 1, with a linear head."""

    def __init__(self, *, classes: int, dropout: float, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess
        layers = build_mobilenet_layers()
        layers.append(ConvBnRelu(MOBILENET_BLOCKS[-1][1], _LAST, kernel=1))
        self.features = nn.Sequential(*layers)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(_LAST, classes))
        start_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `images` `(batch, channels, height, width)` in 0..1."""
        return self.decide(self.encode(images))

    def encode(self, inputs: Tensor) -> Tensor:
        """What the head sees, `(batch, 1280)`."""
        features: Tensor = self.pool(self.features(self.preprocess(inputs)))
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
        return [
            "preprocess",
            *(f"features.{number}" for number in range(len(self.features))),
            "pool",
            "classifier",
        ]

    def adapter_targets(self) -> list[str]:
        """The modules that low-rank updates go beside: convolutions over all channels, of one pixel."""
        return one_pixel_convolutions(self)


def build_model(
    *,
    channels: int,
    height: int,
    width: int,
    classes: int,
    dropout: float,
    size: int | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> nn.Module:
    """The network, with fresh weights from torch's present random state.

    Args:
        channels: 1 or 3 of the pictures that come in; one is repeated.
        size: pixels a side to which pictures are scaled; None leaves them. The network divides it by 32.
        mean: of the pictures that its weights were trained on, a number a channel; ImageNet's.
        std: likewise, the standard deviation.
    """
    check_pictures(channels=channels, smallest=size if size is not None else min(height, width))
    return MobileNetV2(classes=classes, dropout=dropout, preprocess=Preprocess(size=size, mean=mean, std=std))
