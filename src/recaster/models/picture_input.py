"""What networks for pictures share: how pictures come in, and their normalisation.

This file imports only torch: it travels with exported models as a part of their `modeling.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Preprocess(nn.Module):
    """Pictures in 0..1 as the network was trained on them: colour, size, mean and deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, size: int | None, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.size = size
        # Not persistent: they are arguments, and published weights have no such entries.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """`(batch, 3, size, size)` of `images` `(batch, channels, height, width)`; grey ones are repeated."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            smaller = min(images.shape[-2:]) > self.size
            images = F.interpolate(
                images, (self.size, self.size), mode="bilinear", align_corners=False, antialias=smaller
            )
        return (images - self.mean) / self.std


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics stay as they are where its weight is frozen.

    Else a frozen layer's running mean would follow the new data all the same, and an adapter beside it
    would be worth nothing on the weights it was trained for.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """`input` `(batch, channels, height, width)`, normalised."""
        if self.weight.requires_grad or not self.training:
            return super().forward(input)
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def start_convolutions(model: nn.Module) -> None:
    """First weights of convolutions and linear layers as in torchvision's networks."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)


def check_pictures(*, channels: int, smallest: int) -> None:
    """Refuse what a network that halves its pictures five times cannot take.

    Args:
        channels: of a picture.
        smallest: pixels of its shorter side.

    Raises:
        ValueError: neither grey nor of three colours, or too small.
    """
    if smallest < 32:
        raise ValueError(
            f"pictures of {smallest} pixels leave nothing after five halvings; at least 32 are needed"
        )
    if channels not in {1, 3}:
        raise ValueError(f"pictures have 1 or 3 channels, not {channels}")


def one_pixel_convolutions(model: nn.Module) -> list[str]:
    """Names of the convolutions over all channels of one pixel: where low-rank updates go."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    ]
