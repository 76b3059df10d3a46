"""A convolutional network that learns small pictures in few epochs: airbench, in its form for CIFAR-10.

This file imports only torch: a copy of it travels with every exported model as `modeling.py`.

    images 0..1 → whitened patches → 3 × (conv, pool, norm, GELU, conv, norm, GELU) → maximum → linear

Source: K. Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", 2024; the whitened patches are of
D. Page, "How to train your ResNet", 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PATCH = 2
_LEAST_VARIANCE = 3e-5
"""Added to a direction's own, so that what is next to constant is not blown up; for pixels in 0..1."""
_MOMENTUM = 0.4
"""A running statistic's share of news: an epoch may have no more than a hundred steps."""
_LOGIT_SCALE = 1 / 9


class WhitenedPatches(nn.Module):
    """Patches of 2x2 pixels in uncorrelated directions of equal variance, and their negatives.

    Until `begin_with` has seen pictures, the directions are random ones. Training leaves them as they are.
    """

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        count = channels * _PATCH**2
        directions = nn.init.orthogonal_(torch.empty(count, count)).view(count, channels, _PATCH, _PATCH)
        self.register_buffer("weight", torch.cat([directions, -directions]))
        self.bias = nn.Parameter(torch.zeros(2 * count))

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, 8 channels, height - 1, width - 1)`."""
        return F.gelu(F.conv2d(images, self.weight, self.bias))

    @torch.no_grad()
    def begin_with(self, pictures: Tensor) -> None:
        """Find the directions, and the mean that is taken off, from `pictures`."""
        patches = F.unfold(pictures.double(), _PATCH).transpose(1, 2).flatten(0, 1)
        mean = patches.mean(0)
        variances, directions = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        # Which of a direction and its negative is found is up to the machine, and ranks must agree.
        largest = directions.abs().argmax(0, keepdim=True)
        directions = directions * directions.gather(0, largest).sign()
        filters = (directions / (variances + _LEAST_VARIANCE).sqrt()).T
        filters = torch.cat([filters, -filters])
        self.weight.copy_(filters.view_as(self.weight))
        self.bias.copy_(-filters @ mean)


class Norm(nn.BatchNorm2d):
    """Batch normalisation that is shifted and not scaled: weight decay would shrink a scale to nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=_MOMENTUM)
        self.weight.requires_grad_(False)


class Block(nn.Module):
    """Half the size: two convolutions, of which the first begins as the identity as far as it goes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = Norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = Norm(outputs)
        for convolution in (self.conv1, self.conv2):
            with torch.no_grad():
                nn.init.dirac_(convolution.weight[: convolution.in_channels])

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, outputs, height / 2, width / 2)`."""
        hidden = F.gelu(self.bn1(F.max_pool2d(self.conv1(images), 2)))
        return F.gelu(self.bn2(self.conv2(hidden)))


class Pool(nn.Module):
    """The largest value over all places."""

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, channels)`."""
        return features.amax((2, 3))


class Head(nn.Module):
    """Small logits, so that the first steps find a loss that is not steep."""

    def __init__(self, inputs: int, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(inputs, classes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, classes)`."""
        logits: Tensor = self.linear(self.dropout(features)) * _LOGIT_SCALE
        return logits


class Airbench(nn.Module):
    """Whitened patches, three blocks, a linear head."""

    def __init__(self, *, channels: int, classes: int, hidden: int, widening: int, dropout: float) -> None:
        super().__init__()
        self.patches = WhitenedPatches(channels)
        first, later = 2 * channels * _PATCH**2, widening * hidden
        self.blocks = nn.Sequential(Block(first, hidden), Block(hidden, later), Block(later, later))
        self.pool = Pool()
        self.classifier = Head(later, classes, dropout=dropout)

    def begin_with(self, pictures: Tensor) -> None:
        """Take the first layer from some `pictures` `(batch, channels, height, width)` in 0..1."""
        self.patches.begin_with(pictures)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `images` `(batch, channels, height, width)` in 0..1."""
        return self.decide(self.encode(images))

    def encode(self, inputs: Tensor) -> Tensor:
        """What the head sees, `(batch, widening x hidden)`."""
        features: Tensor = self.pool(self.blocks(self.patches(inputs)))
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
        return ["patches", *(f"blocks.{number}" for number in range(len(self.blocks))), "pool", "classifier"]


def build_model(
    *, channels: int, height: int, width: int, classes: int, hidden: int, dropout: float, widening: int = 4
) -> nn.Module:
    """The network, with fresh weights from torch's present random state.

    Args:
        height: at least 16 pixels: it is halved three times.
        width: likewise.
        hidden: channels of the first block: 64 in the paper, and 128 in its larger form.
        widening: the other blocks' channels as a multiple of these: 4 in the paper, 3 in its larger form.
    """
    if min(height, width) < 16:
        raise ValueError(f"pictures of {height}x{width} are smaller than 16x16")
    built = Airbench(channels=channels, classes=classes, hidden=hidden, widening=widening, dropout=dropout)
    return built.to(torch.float32)
