"""Features of pictures by a named open network, in which sets of pictures are compared.

The usual network for this is Inception (Heusel et al. 2017), whose weights are not used here: figures are
comparable only among those of one encoder, never with Inception's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.models.efficientnet_lite0 import EfficientNetLite0
from recaster.models.loading import load_state, read_state
from recaster.models.mobilenet_v2 import MobileNetV2
from recaster.models.open_models import Headed
from recaster.models.open_pictures import build_picture_classifier
from recaster.models.picture_models import find_architecture, is_open
from recaster.models.small_cnn import SmallCnn

_BATCH_ROWS = 128
Encode = Callable[[Tensor], Tensor]
"""From pictures `(rows, channels, height, width)` in 0..1 to features `(rows, numbers)`."""


class PictureEncoder:
    """Pictures to features; of their pixels themselves where there is no network."""

    def __init__(self, folder: Path | None, *, shape: tuple[int, int, int], size: int | None) -> None:
        """Load the network.

        Args:
            folder: of the base model; None for pixels.
            shape: channels, height, width of the pictures.
            size: pixels a side to which they are scaled.

        Raises:
            RecipeError: it is no network for pictures with features of its own.
        """
        self._encode: Encode = _flatten if folder is None else _open(folder, shape, size)

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """`(rows, numbers)` float32 of `pictures` `(rows, channels, height, width)` in 0..1."""
        pieces = [self._encode(piece).float() for piece in pictures.split(_BATCH_ROWS)]
        return torch.cat(pieces)


def _flatten(pictures: Tensor) -> Tensor:
    return pictures.flatten(1)


def _open(folder: Path, shape: tuple[int, int, int], size: int | None) -> Encode:
    network = open_network(folder, shape, size)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _last_block(network)


def open_network(folder: Path, shape: tuple[int, int, int], size: int | None) -> nn.Module:
    """The network in `folder`, frozen, for pictures of `shape` that it scales to `size` pixels a side.

    Raises:
        RecipeError: it is no network for pictures.
    """
    config = read_json(folder / "config.json")
    if is_open(folder):
        names = config.get("id2label", {})
        network: nn.Module = build_picture_classifier(folder, list(names.values()))
    else:
        sizes = dict(zip(("channels", "height", "width"), shape, strict=True))
        own = config.get("arguments", {})
        arguments = {"classes": 1000, "dropout": 0.0, "size": size, "labels": [], **own, **sizes}
        network = find_architecture(arguments | {"size": size}, folder).build()
        load_state(network, read_state(folder))
    return network.eval().requires_grad_(requires_grad=False)


def _last_block(network: nn.Module) -> Encode:
    """Means over places of the last block: 320 numbers of the mobile networks, before they widen to 1280.

    A covariance of 320 numbers needs a tenth of the pictures to be known.
    """
    if isinstance(network, MobileNetV2):
        blocks = network.features[:-1]
        return lambda pictures: blocks(network.preprocess(pictures)).mean((2, 3))
    if isinstance(network, EfficientNetLite0):
        return lambda pictures: network._blocks(
            network._bn0(network._conv_stem(network.preprocess(pictures)))
        ).mean((2, 3))
    if isinstance(network, SmallCnn):
        features = network.features
        return lambda pictures: features(pictures).mean((2, 3))
    if isinstance(network, Headed):
        return network.encode
    raise RecipeError(
        "The encoder has no features apart from its answers.",
        where="evaluate.encoder",
        value=type(network).__name__,
        repair="use MobileNetV2 or EfficientNet-Lite0 with ImageNet weights, or a classifier trained here",
    )
