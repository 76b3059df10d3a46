"""What generated pictures are compared with, prepared once: features of real ones, and of a simple baseline.

test.features.npy       (held-out rows, features)
real.features.npy       (as many, features) of training pictures: what a perfect generator would reach
gaussian.features.npy   (as many, features) of pixels drawn from one Gaussian fitted to the training pictures
encoder/                the network, where there is one
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed
from recaster.data.shards import Shard, read_shard
from recaster.models.picture_features import PictureEncoder

if TYPE_CHECKING:
    from recaster.recipe.data import ImageShape

ENCODER = "encoder"
"""Folder of the prepared data with the network that makes features."""
BASELINES = ("real", "gaussian")
_FITTED_ROWS = 10_000
_SEED = 0


def open_encoder(prepared: Path, image: ImageShape, size: int | None) -> PictureEncoder:
    """The encoder of a prepared set; that of pixels where none was named.

    Args:
        size: pixels a side to which it scales pictures.
    """
    folder = prepared / ENCODER
    return PictureEncoder(
        folder if folder.is_dir() else None, shape=(image.channels, image.height, image.width), size=size
    )


def write_references(folder: Path, encoder: PictureEncoder) -> None:
    """Write the features of the prepared set in `folder`."""
    train, test = read_shard(folder, "train"), read_shard(folder, "test")
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(train.labels))[: len(test.labels)])
    sets = {
        "test": test.scaled(slice(None)),
        "real": train.scaled(rows),
        "gaussian": draw_gaussian(train, len(rows)),
    }
    for name, pictures in sets.items():
        np.save(folder / f"{name}.features.npy", encoder.features(torch.from_numpy(pictures)).numpy())


def draw_gaussian(shard: Shard, rows: int) -> NDArray[np.float32]:
    """Pictures `(rows, channels, height, width)` in 0..1 of one Gaussian, fitted to the pixels of `shard`."""
    random = np.random.default_rng(derive_seed(_SEED, "gaussian"))
    fitted = np.sort(random.permutation(len(shard.labels))[:_FITTED_ROWS])
    pictures = shard.scaled(fitted)
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(flat, rowvar=False)))
    noise = random.standard_normal((rows, len(values))) * np.sqrt(values.clip(0))
    drawn = flat.mean(0) + noise @ vectors.T
    made: NDArray[np.float32] = drawn.clip(0, 1).astype(np.float32)
    return made.reshape(rows, *pictures.shape[1:])
