"""The layers of MobileNetV2 (Sandler et al. 2018), which classifiers and detectors share.

This file and what it shares import only torch: they travel with exported models as a part of their
`modeling.py`. Parameters have the names of torchvision's published weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from recaster.models.picture_input import BatchNorm

MOBILENET_BLOCKS = (
    # expansion, channels, blocks, stride of the first: table 2 of the paper
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
MOBILENET_FIRST = 32
"""Channels of the first convolution."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ConvBnRelu(nn.Sequential):
    """Convolution, batch normalisation, ReLU6."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = (kernel - 1) // 2
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            BatchNorm(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter by depth, project by 1x1; added to its input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        hidden = inputs * expansion
        widen = [ConvBnRelu(inputs, hidden, kernel=1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            ConvBnRelu(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            BatchNorm(outputs),
        )

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, outputs, height / stride, width / stride)`."""
        filtered: Tensor = self.conv(images)
        return images + filtered if self.residual else filtered


def build_mobilenet_layers() -> list[nn.Module]:
    """The first convolution and the 17 inverted residuals at width 1; the last gives 320 channels at 1/32."""
    layers: list[nn.Module] = [ConvBnRelu(3, MOBILENET_FIRST, kernel=3, stride=2)]
    inputs = MOBILENET_FIRST
    for expansion, outputs, blocks, stride in MOBILENET_BLOCKS:
        for number in range(blocks):
            step = stride if number == 0 else 1
            layers.append(InvertedResidual(inputs, outputs, stride=step, expansion=expansion))
            inputs = outputs
    return layers
