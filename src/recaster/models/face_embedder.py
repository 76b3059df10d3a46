"""An embedding of faces: any picture network whose outputs are taken as a vector of length 1.

    pictures 0..1 → network with `embedding` outputs → length 1 → (in training) cosines to its people

What comes out of training is the network alone: the people's directions are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.open_pictures import PictureClassifier
from recaster.models.picture_models import build_picture_model, load_picture_model


class FaceEmbedder(nn.Module):
    """Embeddings; in training with a head, cosines to the people of the training split."""

    def __init__(self, network: nn.Module, *, embedding: int, identities: int | None) -> None:
        super().__init__()
        self.network = network
        self.people = None if identities is None else nn.Parameter(torch.randn(identities, embedding))
        self.report = getattr(network, "report", None)

    def forward(self, images: Tensor) -> Tensor:
        """`(rows, embedding)` of length 1, in training `(rows, people)`; of pictures as networks have it."""
        embeddings = F.normalize(self.network(images).float())
        if self.people is None or not self.training:
            return embeddings
        return embeddings @ F.normalize(self.people).T


def build_face_embedder(
    arguments: Mapping[str, Any], base: Path | None, *, pictures: Path, identities: int | None
) -> FaceEmbedder:
    """The network of a plan's `model_arguments`, with the base's weights where they fit.

    Args:
        pictures: the prepared data, see `build_picture_model`.
        identities: people of the training split; None for a loss that compares embeddings alone.

    Raises:
        RecipeError, BaseModelError: see `build_picture_model`.
    """
    return FaceEmbedder(
        build_picture_model(arguments, base, pictures=pictures),
        embedding=arguments["classes"],
        identities=identities,
    )


def load_face_embedder(artifact: Path) -> FaceEmbedder:
    """The embedder of an exported artifact, ready to answer."""
    network = load_picture_model(artifact)
    return FaceEmbedder(network, embedding=0, identities=None).eval()


def is_open_network(model: FaceEmbedder) -> bool:
    """Whether its network is one of transformers."""
    return isinstance(model.network, PictureClassifier)


@torch.no_grad()
def embed(model: nn.Module, images: Tensor, *, flip: bool) -> Tensor:
    """Embeddings `(rows, embedding)` of length 1; with `flip` the mean with those of mirrored pictures."""
    embeddings: Tensor = model(images)
    if flip:
        embeddings = F.normalize(embeddings + model(images.flip(3)))
    return embeddings
