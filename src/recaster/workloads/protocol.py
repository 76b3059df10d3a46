"""What a kind of work provides: data contract, tensors, model, loss, predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recaster.recipe.schema import Recipe
from recaster.training.trainable import Trainable

if TYPE_CHECKING:
    from recaster.data.contract import RowRule


class Workload(Trainable, Protocol):
    """One kind of work; `WORKLOAD` of its module is the instance."""

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """The data contract's rules for each record."""

    def prepare(self, recipe: Recipe, raw: Path, accepted: NDArray[np.int64], folder: Path) -> dict[str, Any]:
        """Split the accepted records of the packed set `raw` into shards in `folder`; return counts."""

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Keyword arguments of the modeling file's `build_model`."""

    def modeling_file(self, recipe: Recipe) -> Path:
        """The Python file, importing only torch, that travels with the exported model."""

    def predict(
        self, artifact: Path, prepared: Path, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Probabilities `(rows, classes)` of the exported model on a split, and its targets `(rows,)`."""
