"""A compact one-stage detector without anchors: a feature pyramid over an ImageNet backbone.

This file and what it shares import only torch: they travel with every exported model as `modeling.py`.
The pyramid is that of Lin et al. 2017, the head that of FCOS (Tian et al. 2019) in depthwise convolutions;
there is no centre-ness, since the score itself learns how well a box fits (Feng et al. 2021).

    images 0..1 → backbone → 1/8, 1/16, 1/32 → pyramid → at each point: classes, four distances to sides
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.mobilenet_v2_layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ConvBnRelu,
    build_mobilenet_layers,
)
from recaster.models.nms import pick_detections
from recaster.models.picture_input import Preprocess, start_convolutions

STRIDES = (8, 16, 32)
"""Pixels between two points of each level."""
POINT_COLUMNS = 7
"""Of the network's output before the classes: point's x, y and stride, then its box."""
_PRIOR = 0.01
"""Share of points that are taken for an object at first (Lin et al. 2017, focal loss)."""
_TAPS = {"mobilenet-v2": ((6, 32), (13, 96), (17, 320))}
"""Layers that give 1/8, 1/16 and 1/32, and their channels."""


class Backbone(nn.Sequential):
    """Layers of which some outputs are kept."""

    def __init__(self, layers: list[nn.Module], taps: tuple[tuple[int, int], ...]) -> None:
        super().__init__(*layers)
        self.taps = [number for number, _ in taps]
        self.channels = [channels for _, channels in taps]

    def forward(self, images: Tensor) -> list[Tensor]:
        """A tensor for each of `STRIDES`, `(batch, channels, height / stride, width / stride)`."""
        kept, value = [], images
        for number, layer in enumerate(self):
            value = layer(value)
            if number in self.taps:
                kept.append(value)
        return kept


class Pyramid(nn.Module):
    """Coarse levels help fine ones."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvBnRelu(inputs, width, kernel=1) for inputs in channels)
        self.smooth = nn.ModuleList(_separable(width) for _ in channels)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Each level with `width` channels, in the same sizes."""
        found = [part(level) for part, level in zip(self.lateral, levels, strict=True)]
        for number in range(len(found) - 2, -1, -1):
            fine = found[number]
            found[number] = fine + F.interpolate(found[number + 1], size=fine.shape[-2:], mode="nearest")
        return [part(level) for part, level in zip(self.smooth, found, strict=True)]


class LevelHead(nn.Module):
    """Classes and distances at the points of one level."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Sequential(_separable(width), _separable(width))
        self.locate = nn.Sequential(_separable(width), _separable(width))
        self.classes = nn.Conv2d(width, classes, 1)
        self.distances = nn.Conv2d(width, 4, 1)

    def start(self) -> None:
        """First weights of the last convolutions, so that few points are taken for an object."""
        for part in (self.classes, self.distances):
            nn.init.normal_(part.weight, 0, 0.01)
            nn.init.constant_(part.bias, 1.0)  # type: ignore[arg-type] # there is one
        nn.init.constant_(self.classes.bias, -math.log((1 - _PRIOR) / _PRIOR))  # type: ignore[arg-type]

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(batch, points, classes)`, and distances in strides `(batch, points, 4)`."""
        logits = self.classes(self.classify(level)).flatten(2).transpose(1, 2)
        distances = self.distances(self.locate(level)).flatten(2).transpose(1, 2)
        return logits.float(), F.softplus(distances.float()) * 2


class Detector(nn.Module):
    """The network."""

    def __init__(self, *, backbone: Backbone, classes: int, width: int, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.features = backbone
        self.pyramid = Pyramid(backbone.channels, width)
        self.heads = nn.ModuleList(LevelHead(width, classes) for _ in STRIDES)
        start_convolutions(self)
        for head in self.heads:
            head.start()  # type: ignore[operator] # a LevelHead

    def forward(self, images: Tensor) -> Tensor:
        """What is seen at each point of pictures `(batch, channels, height, width)` in 0..1.

        Returns:
            `(batch, points, 7 + classes)`: the point's x, y and stride, its box, all in pixels; logits.
        """
        size = images.shape[-2:]
        levels = self.pyramid(self.features(self.preprocess(images)))
        found = []
        for head, level, stride in zip(self.heads, levels, STRIDES, strict=True):
            logits, distances = head(level)
            points = _points(level, stride).expand(len(logits), -1, -1)
            found.append(torch.cat([points, _to_boxes(points, distances, size), logits], 2))
        return torch.cat(found, 1)

    @torch.no_grad()
    def detect(
        self, images: Tensor, *, overlap: float, least_score: float, most: int, candidates: int = 300
    ) -> Tensor:
        """Boxes `(batch, most, 6)` of pictures in 0..1: box in pixels, score, class number; -1 fills up."""
        seen = self(images)
        return pick_detections(
            seen[:, :, 3:POINT_COLUMNS],
            seen[:, :, POINT_COLUMNS:].sigmoid(),
            overlap=overlap,
            least_score=least_score,
            most=most,
            candidates=candidates,
        )

    def layers(self) -> list[str]:
        """Names of the modules that count as layers, from the input on."""
        return [*(f"features.{number}" for number in range(len(self.features))), "pyramid", "heads"]


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(ConvBnRelu(width, width, kernel=3, groups=width), ConvBnRelu(width, width, kernel=1))


def _points(level: Tensor, stride: int) -> Tensor:
    """`(1, height * width, 3)`: x and y of the middle of each cell, in pixels, and the stride."""
    height, width = level.shape[-2:]
    down = (torch.arange(height, device=level.device) + 0.5) * stride
    right = (torch.arange(width, device=level.device) + 0.5) * stride
    y, x = torch.meshgrid(down, right, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, stride)], -1).view(1, -1, 3)


def _to_boxes(points: Tensor, distances: Tensor, size: torch.Size) -> Tensor:
    """Boxes `(batch, points, 4)` in pixels, not outside of pictures of `size` (height, width)."""
    place, away = points[:, :, :2], distances * points[:, :, 2:]
    boxes = torch.cat([place - away[:, :, :2], place + away[:, :, 2:]], 2)
    height, width = size
    return boxes.clamp(min=0).minimum(boxes.new_tensor([width, height, width, height]))


def _small_layers(width: int) -> tuple[list[nn.Module], tuple[tuple[int, int], ...]]:
    """Five halvings, for pictures of few and simple things."""
    outputs = (width, width, 2 * width, 2 * width, 2 * width)
    inputs = (3, *outputs[:-1])
    layers: list[nn.Module] = [
        ConvBnRelu(before, after, kernel=3, stride=2) for before, after in zip(inputs, outputs, strict=True)
    ]
    return layers, tuple((number, outputs[number]) for number in (2, 3, 4))


def build_model(
    *, backbone: str, channels: int, height: int, width: int, classes: int, features: int
) -> nn.Module:
    """The network, with fresh weights from torch's present random state.

    Args:
        backbone: `mobilenet-v2`, or `small`.
        channels: 1 or 3 of the pictures that come in; one is repeated.
        height: pixels; a multiple of 32.
        width: likewise.
        features: channels of the pyramid; of the backbone `small` those of its first layers.

    Raises:
        ValueError: the pictures cannot be halved five times.
    """
    if height % STRIDES[-1] or width % STRIDES[-1]:
        raise ValueError(f"pictures of {height}x{width}: both sides must be multiples of {STRIDES[-1]}")
    if channels not in {1, 3}:
        raise ValueError(f"pictures have 1 or 3 channels, not {channels}")
    if backbone in _TAPS:
        kept = Backbone(build_mobilenet_layers(), _TAPS[backbone])
    else:
        kept = Backbone(*_small_layers(features))
    return Detector(
        backbone=kept,
        classes=classes,
        width=features,
        preprocess=Preprocess(size=None, mean=IMAGENET_MEAN, std=IMAGENET_STD),
    )
