"""Prepared pictures for a game between two networks: each row with noise of its own.

picture 17 of epoch 3  →  noise, chances, class, pixels   by (the epoch's seed, 17) alone
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recaster.core.seeds import derive_seed
from recaster.data.picture_set import PictureSet
from recaster.data.sending import PROCESSOR, send_to
from recaster.models.game_rows import CHANCES, GameRows, join_rows

_UNSEEDED = 0
"""The noise that validation meets each time."""


class NoisyPictures:
    """A picture set whose rows are those of `models.game_rows`."""

    uniform = True
    lengths = None

    def __init__(self, pictures: PictureSet, *, noise: int) -> None:
        """Lay noise beside `pictures`.

        Args:
            noise: numbers that the generator takes.
        """
        self._pictures, self._noise = pictures, noise
        self._drawn: tuple[int, NDArray[np.float32], NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        """Pictures in the split."""
        return len(self._pictures)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of `rows`."""
        return self._pictures.ids(rows)

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Joined rows `(rows, columns)`, and class numbers `(rows,)`; with a seed augmented."""
        return self.batch_on(PROCESSOR, rows, seed=seed)

    def batch_on(
        self, device: torch.device, rows: NDArray[np.int64], *, seed: int | None
    ) -> tuple[Tensor, Tensor]:
        """What `batch` gives, made on `device`."""
        pictures, classes = self._pictures.batch_on(device, rows, seed=seed)
        noise, chances = self._draw(_UNSEEDED if seed is None else seed)
        joined = GameRows(
            noise=send_to(device, torch.from_numpy(noise[rows])),
            chances=send_to(device, torch.from_numpy(chances[rows])),
            classes=classes,
            pictures=pictures,
        )
        return join_rows(joined), classes

    def _draw(self, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """A row for each picture of the split, made once for each seed."""
        drawn = self._drawn
        if drawn is None or drawn[0] != seed:
            random = np.random.default_rng(derive_seed(seed, "noise"))
            size = len(self)
            drawn = self._drawn = (
                seed,
                random.standard_normal((size, self._noise), dtype=np.float32),
                random.random((size, CHANCES), dtype=np.float32),
            )
        return drawn[1], drawn[2]


def draw_noise(seeds: NDArray[np.int64], numbers: int) -> NDArray[np.float32]:
    """Standard normal noise `(seeds, numbers)`, each row by its seed alone.

    The served model draws it in the same way, so that a seed names one picture wherever it is asked for.
    """
    rows = [np.random.default_rng(seed).standard_normal(numbers, dtype=np.float32) for seed in seeds.tolist()]
    return np.stack(rows) if rows else np.zeros((0, numbers), dtype=np.float32)
