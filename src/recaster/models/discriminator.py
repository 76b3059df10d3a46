"""Discriminators of GANs: a picture, and its class where they are conditional, in; how real it looks out.

picture -1..1 → stages of half the size → sum over places → linear (+ product with the class's vector)

The class enters as a projection (Miyato and Koyama, "cGANs with projection discriminator", ICLR 2018);
weights may be divided by their largest singular value (Miyato et al., "Spectral normalization", ICLR 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from recaster.models.generator_layers import count_halvings, start_orthogonally

_SLOPE = 0.2


class ShrinkingBlock(nn.Module):
    """Half the size: two convolutions beside a 1x1 convolution, then means of four."""

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, outputs, height / 2, width / 2)`."""
        hidden = features if self.first else F.leaky_relu(features, _SLOPE)  # pixels come in as they are
        hidden = self.conv2(F.leaky_relu(self.conv1(hidden), _SLOPE))
        shrunk: Tensor = F.avg_pool2d(hidden, 2) + self.shortcut(F.avg_pool2d(features, 2))
        return shrunk


class StridedStage(nn.Module):
    """Half the size by one strided convolution (Radford et al. 2016), without normalisation."""

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv = nn.Conv2d(inputs, outputs, 4, 2, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, outputs, height / 2, width / 2)`."""
        shrunk: Tensor = self.conv(features if self.first else F.leaky_relu(features, _SLOPE))
        return shrunk


class Discriminator(nn.Module):
    """Pictures, with classes, to logits: above zero for those taken as real."""

    def __init__(
        self,
        *,
        architecture: str,
        channels: int,
        height: int,
        width: int,
        hidden: int,
        classes: int,
        spectral: bool,
    ) -> None:
        super().__init__()
        self.width = hidden
        stages = count_halvings(height, width)
        residual = architecture == "resnet"
        widths = [channels, *(hidden if residual else hidden * min(4, 2**n) for n in range(stages))]
        if not stages:
            widths.append(hidden)
        block = ShrinkingBlock if residual else StridedStage
        self.stages = nn.Sequential(
            *(block(widths[n], widths[n + 1], first=n == 0) for n in range(stages)),
            nn.Identity() if stages else nn.Conv2d(channels, hidden, 3, padding=1),
        )
        self.filter = nn.Conv2d(widths[-1], widths[-1], 3, padding=1)
        self.decide = nn.Linear(widths[-1], 1)
        start_orthogonally(self)
        if classes:
            self.class_vectors = nn.Embedding(classes, widths[-1])
            nn.init.orthogonal_(self.class_vectors.weight)
        if spectral:
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                    spectral_norm(module)

    def forward(self, pictures: Tensor, classes: Tensor | None) -> Tensor:
        """Logits `(batch, 1)` of `pictures` `(batch, channels, height, width)` in -1..1.

        Args:
            classes: `(batch,)` numbers; of a conditional discriminator.
        """
        features = F.leaky_relu(self.stages(pictures), _SLOPE)
        features = F.leaky_relu(self.filter(features), _SLOPE).sum((2, 3))
        logits: Tensor = self.decide(features)
        if classes is not None:
            logits = logits + (self.class_vectors(classes) * features).sum(1, keepdim=True)
        return logits


def build_discriminator(
    *,
    architecture: str,
    channels: int,
    height: int,
    width: int,
    hidden: int,
    classes: int,
    spectral: bool,
) -> Discriminator:
    """The discriminator, with fresh weights from torch's present random state; arguments as a generator's.

    Args:
        spectral: divide each layer's weights by their largest singular value.
    """
    return Discriminator(
        architecture=architecture,
        channels=channels,
        height=height,
        width=width,
        hidden=hidden,
        classes=classes,
        spectral=spectral,
    ).to(torch.float32)
