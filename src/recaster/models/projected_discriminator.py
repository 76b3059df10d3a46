"""A discriminator that sees pictures through the frozen features of an open network.

pictures -1..1 → open network, frozen → maps of four sizes → random mixing, frozen → a critic for each size

What the open network knows of things need not be learned from the generator's mistakes, so that far fewer
pictures are needed. Mixing keeps the critics from going by the few features that are easiest to tell apart.
Critics normalise by the batch, of real and of generated pictures apart: without that, a generator ends with
the one picture that pleases most.
Source: Sauer et al., "Projected GANs converge faster", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from recaster.core.errors import RecipeError

_MAPS = 4
"""The last so many sizes of maps."""
_MIXED = 64
"""Channels of each map after mixing."""
_SLOPE = 0.2
_LEAST_SIDE, _MOST_SIDE = 2, 4
"""Of a map: smaller ones are not looked at; critics halve larger ones before they judge each place."""


class Pyramid(nn.Module):
    """An open network's maps, mixed across channels and from the coarse to the fine ones.

    The network is no child: it stays as it is published, in evaluation mode, and is not saved with what is
    trained. Random mixing weights are, and stay as they were drawn.
    """

    def __init__(self, network: nn.Module, *, shape: tuple[int, int, int]) -> None:
        """Find the maps that `network` makes of pictures of `shape` (channels, height, width)."""
        super().__init__()
        self._network = (network.eval().requires_grad_(requires_grad=False),)
        self._taps, sizes = _find_taps(network, shape)
        self.sides = [side for _, side in sizes]
        self.across = nn.ModuleList(nn.Conv2d(channels, _MIXED, 1) for channels, _ in sizes)
        self.down = nn.ModuleList(nn.Conv2d(_MIXED, _MIXED, 3, padding=1) for _ in sizes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)
        self.requires_grad_(requires_grad=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        """To another device or memory format, together with the network."""
        self._network[0]._apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """From the finest on, `(batch, 64, side, side)` of `pictures` in -1..1."""
        mixed: list[Tensor] = []
        for features, across, down in list(
            zip(self._maps((pictures + 1) / 2), self.across, self.down, strict=True)
        )[::-1]:
            found = across(features)
            if mixed:
                found = found + F.interpolate(
                    mixed[-1], found.shape[-2:], mode="bilinear", align_corners=False
                )
            mixed.append(down(found))
        return mixed[::-1]

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        kept, features, device = [], pictures.float(), pictures.device.type
        # On a processor, what goes back through convolutions by depth is slower in bf16 than in float32.
        with torch.autocast(device, enabled=device != "cpu" and torch.is_autocast_enabled(device)):
            for link in _links(self._network[0])[: self._taps[-1] + 1]:
                features = link(features)
                kept.append(features)
        return [kept[tap] for tap in self._taps]


class Critic(nn.Module):
    """How real each place of a map looks."""

    def __init__(self, side: int, hidden: int, *, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(_MIXED, hidden, 3, padding=1), _norm(hidden)]
        while side > _MOST_SIDE:
            layers += [nn.LeakyReLU(_SLOPE), nn.Conv2d(hidden, hidden, 4, 2, padding=1), _norm(hidden)]
            side //= 2
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(_SLOPE))
        self.decide = nn.Conv2d(hidden, 1, 1)
        if classes:
            self.class_vectors = nn.Embedding(classes, hidden)
            nn.init.orthogonal_(self.class_vectors.weight)

    def forward(self, features: Tensor, classes: Tensor | None) -> Tensor:
        """Logits `(batch, places)`."""
        hidden = self.layers(features)
        logits: Tensor = self.decide(hidden)[:, 0]
        if classes is not None:
            logits = logits + (self.class_vectors(classes)[:, :, None, None] * hidden).sum(1)
        return logits.flatten(1)


class ProjectedDiscriminator(nn.Module):
    """Pictures, with classes, to logits of many places of several maps: above zero where they look real."""

    def __init__(self, pyramid: Pyramid, *, hidden: int, classes: int, spectral: bool) -> None:
        super().__init__()
        self.width = hidden
        self.pyramid = pyramid
        self.critics = nn.ModuleList(Critic(side, hidden, classes=classes) for side in pyramid.sides)
        if spectral:
            for module in list(self.critics.modules()):
                if isinstance(module, nn.Conv2d | nn.Embedding):
                    spectral_norm(module)

    def forward(self, pictures: Tensor, classes: Tensor | None, *, sets: int = 1) -> Tensor:
        """Logits `(batch, places)` of `pictures` `(batch, channels, height, width)` in -1..1.

        Args:
            classes: `(batch,)` numbers; of a conditional discriminator.
            sets: equally large ones of pictures, one after the other, that are normalised apart.
        """
        told = [None] * sets if classes is None else classes.chunk(sets)
        found = []
        for critic, features in zip(self.critics, self.pyramid(pictures), strict=True):
            pieces = zip(features.chunk(sets), told, strict=True)
            found.append(torch.cat([critic(piece, own) for piece, own in pieces]))
        return torch.cat(found, 1)


def _norm(channels: int) -> nn.Module:
    """By the present batch, always: nothing is remembered of those before."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def _links(network: nn.Module) -> list[nn.Module]:
    """The modules whose application one after the other is the network."""
    chain = getattr(network, "chain", None)
    if chain is None:
        raise RecipeError(
            "The discriminator cannot look into this network.",
            where="train.adversary.encoder",
            value=type(network).__name__,
            repair="use MobileNetV2 or EfficientNet-Lite0 with ImageNet weights, or a classifier of your own",
        )
    return [network.get_submodule(name) for name in chain()]


@torch.no_grad()
def _find_taps(
    network: nn.Module, shape: tuple[int, int, int]
) -> tuple[list[int], Sequence[tuple[int, int]]]:
    """Which links end the last sizes of maps, and channels and shorter side of each."""
    features, found = torch.zeros(1, *shape), {}
    for number, link in enumerate(_links(network)):
        features = link(features)
        if features.ndim != 4 or min(features.shape[-2:]) < _LEAST_SIDE:
            break
        if number:  # the first link may only scale the pictures
            found[features.shape[-2:]] = (number, features.shape[1], min(features.shape[-2:]))
    if not found:
        raise RecipeError(
            "The network makes no maps of these pictures for the discriminator to look at.",
            where="train.adversary.encoder_size",
            value=f"pictures of {shape[1]}x{shape[2]}",
            repair="scale pictures up: set train.adversary.encoder_size to 64 or more",
        )
    last = list(found.values())[-_MAPS:]
    return [number for number, _, _ in last], [(channels, side) for _, channels, side in last]
