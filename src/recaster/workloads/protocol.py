"""What a kind of work provides: data contract, tensors, model, loss, predictions, metrics, artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from recaster.recipe.evaluation import EvaluateSection
from recaster.recipe.schema import Recipe
from recaster.training.trainable import Trainable

if TYPE_CHECKING:
    import pandas as pd

    from recaster.data.contract import RowRule

MetricFunction = Callable[[NDArray[np.float64], NDArray[Any]], float]
"""From predictions and targets of the same rows, whatever these are for the workload: class numbers, counts,
or the boxes of each picture."""


class Workload(Trainable, Protocol):
    """One kind of work; `WORKLOAD` of its module is the instance."""

    kind: str
    """Of record: the section of the recipe's data that must be there."""
    architectures: Sequence[str]
    """What may follow `scratch:` in the recipe's model.base."""
    served_by: str
    """The module of `recaster.serving` that answers for the artifact in MLflow."""

    def facts(self, raw: Path) -> pd.DataFrame:
        """One row for each record of the packed set `raw`, for the data contract."""

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """The data contract's rules for each record."""

    def prepare(
        self, recipe: Recipe, raw: Path, accepted: NDArray[np.int64], base: Path | None, folder: Path
    ) -> dict[str, Any]:
        """Split the accepted records of the packed set `raw` into shards in `folder`; return counts.

        Args:
            base: the folder of the base model; None for one with fresh weights.
        """

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """What `build_model` needs of the recipe, as plain JSON."""

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """Write the open artifact, all but its card, into `folder` from the trained `weights`."""

    def predict(self, artifact: Path, prepared: Path, split: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Predictions and targets of the exported model on a split, one entry a row in the split's order."""

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:
        """The metrics by name, all known to `recipe.metrics.METRICS`."""

    def report(
        self,
        recipe: Recipe,
        predictions: NDArray[np.float64],
        targets: NDArray[Any],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """Draw plots as PNG files into `folder`; return tables that belong beside the metrics.

        Args:
            prepared: whose test split the predictions are of.
        """


@runtime_checkable
class Generative(Protocol):
    """A workload whose models write; a base that already can is measured as it is, before any training."""

    def answers(self, folder: Path, prepared: Path) -> bool:
        """Whether the base model in `folder` has all weights that it needs to be measured."""

    def write_samples(self, artifact: Path, prepared: Path, recipe: Recipe) -> dict[str, Any]:
        """Let the exported model write on held-out rows; return tables that belong beside the metrics.

        What stands under `measured` becomes metrics: `{name: {value, low, high}}`.
        """


@runtime_checkable
class Judged(Protocol):
    """A workload of which another model can judge what is written."""

    def judge(
        self, judge: Path, tables: dict[str, Any], prepared: Path, recipe: Recipe, *, trust: bool
    ) -> dict[str, float]:
        """Give each row of `tables["replies"]`, which `write_samples` made, a `score`.

        Args:
            judge: folder of the model that judges.
            trust: measure how often it is right where that is known.

        Returns:
            How often, by kinds of pairs; nothing without `trust`.
        """


@runtime_checkable
class Illustrated(Protocol):
    """A workload with pictures that only the model itself can make."""

    def illustrate(self, artifact: Path, prepared: Path, training: Path | None, folder: Path) -> None:
        """Draw them as PNG files into `folder`.

        Args:
            training: folder with what the model made while it trained; None for a model trained elsewhere.
        """


@runtime_checkable
class Explained(Protocol):
    """A workload that shows what its models' answers rest on."""

    def explain(
        self,
        artifact: Path,
        recipe: Recipe,
        *,
        predictions: NDArray[np.float64],
        targets: NDArray[Any],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """Write pictures or pages of the exported model itself into `folder`, such as of its worst errors;
        return tables that belong beside the metrics.

        Args:
            prepared: whose test split the predictions are of.
        """
