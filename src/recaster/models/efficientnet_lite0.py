"""EfficientNet-Lite0 (after Tan and Le 2019): EfficientNet-B0 without squeeze and excitation, with ReLU6.

This file and what it shares import only torch: they travel with every exported model as `modeling.py`.
Parameters have the names of the published weights (those of the package efficientnet_pytorch), so that
these load as they are; convolutions pad as TensorFlow does, in which they were trained.

    images 0..1 → resize, normalise → conv 3x3 /2 → 16 inverted residuals → conv 1x1 → mean → 1280 → linear
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.picture_input import (
    BatchNorm,
    Preprocess,
    check_pictures,
    one_pixel_convolutions,
    start_convolutions,
)

_BLOCKS = (
    # expansion, kernel, channels, blocks, stride of the first: table 1 of the paper
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
_FIRST, _LAST = 32, 1280
_EPSILON, _MOMENTUM = 1e-3, 0.01
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Of the published weights: (value of 0..255 - 127) / 128."""


class SameConv2d(nn.Conv2d):
    """A convolution whose result has `size / stride` pixels a side, rounded up; padded more at the end."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """`input` `(batch, channels, height, width)`, filtered."""
        height, width = (self._padding(int(size)) for size in input.shape[-2:])
        if height or width:
            input = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))  # noqa: A001
        return super().forward(input)

    def _padding(self, size: int) -> int:
        kernel, stride = int(self.kernel_size[0]), int(self.stride[0])
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class BatchNormRelu(BatchNorm):
    """Batch normalisation and ReLU6."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """`input` `(batch, channels, height, width)`, normalised and cut to 0..6."""
        return F.relu6(super().forward(input))


def _conv(inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Padded as `SameConv2d` is: without a stride as much on all sides, which torch can do itself."""
    if stride == 1:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)


class MobileBlock(nn.Module):
    """Widen by 1x1, filter by depth, project by 1x1; added to its input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        hidden = inputs * expansion
        if expansion > 1:
            self._expand_conv = _conv(inputs, hidden)
            self._bn0 = BatchNormRelu(hidden, _EPSILON, _MOMENTUM)
        self._widens = expansion > 1
        self._depthwise_conv = _conv(hidden, hidden, kernel=kernel, stride=stride, groups=hidden)
        self._bn1 = BatchNormRelu(hidden, _EPSILON, _MOMENTUM)
        self._project_conv = _conv(hidden, outputs)
        self._bn2 = BatchNorm(outputs, _EPSILON, _MOMENTUM)

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, outputs, height / stride, width / stride)`."""
        hidden = self._bn0(self._expand_conv(images)) if self._widens else images
        filtered: Tensor = self._bn2(self._project_conv(self._bn1(self._depthwise_conv(hidden))))
        return images + filtered if self.residual else filtered


class EfficientNetLite0(nn.Module):
    """The network with a linear head."""

    def __init__(self, *, classes: int, dropout: float, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess
        self._conv_stem = _conv(3, _FIRST, kernel=3, stride=2)
        self._bn0 = BatchNormRelu(_FIRST, _EPSILON, _MOMENTUM)
        blocks: list[nn.Module] = []
        inputs = _FIRST
        for expansion, kernel, outputs, count, stride in _BLOCKS:
            for number in range(count):
                step = stride if number == 0 else 1
                blocks.append(MobileBlock(inputs, outputs, kernel=kernel, stride=step, expansion=expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = _conv(inputs, _LAST)
        self._bn1 = BatchNormRelu(_LAST, _EPSILON, _MOMENTUM)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self._fc = nn.Linear(_LAST, classes)
        start_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `images` `(batch, channels, height, width)` in 0..1."""
        return self.decide(self.encode(images))

    def encode(self, inputs: Tensor) -> Tensor:
        """What the head sees, `(batch, 1280)`."""
        features = self._bn0(self._conv_stem(self.preprocess(inputs)))
        features = self._bn1(self._conv_head(self._blocks(features)))
        pooled: Tensor = self.pool(features)
        return pooled

    def decide(self, features: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `encode`'s result."""
        logits: Tensor = self._fc(features)
        return logits

    def head_names(self) -> list[str]:
        """The modules of `decide`."""
        return ["_fc"]

    def chain(self) -> list[str]:
        """The modules whose application one after the other is `forward`: a pipeline cuts between them."""
        blocks = [f"_blocks.{number}" for number in range(len(self._blocks))]
        return ["preprocess", "_conv_stem", "_bn0", *blocks, "_conv_head", "_bn1", "pool", "_fc"]

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
    mean: Sequence[float] = _MEAN,
    std: Sequence[float] = _STD,
) -> nn.Module:
    """The network, with fresh weights from torch's present random state.

    Args:
        channels: 1 or 3 of the pictures that come in; one is repeated.
        size: pixels a side to which pictures are scaled; None leaves them. The network divides it by 32;
            its published weights are of 224.
        mean: of the pictures that its weights were trained on, a number a channel.
        std: likewise, the standard deviation.
    """
    check_pictures(channels=channels, smallest=size if size is not None else min(height, width))
    preprocess = Preprocess(size=size, mean=mean, std=std)
    return EfficientNetLite0(classes=classes, dropout=dropout, preprocess=preprocess)
