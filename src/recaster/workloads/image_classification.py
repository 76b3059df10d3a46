"""Image classification: one label a picture.

digit-0000  "0"  8x8x1 pixels 0..16   →   train.images.npy (rows, 1, 8, 8) uint8   →   10 probabilities
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.files import read_json
from recaster.data.augmentation import Augmentation
from recaster.data.picture_set import PictureSet
from recaster.data.shards import measure_light, read_shard
from recaster.data.slice_groups import read_slice_groups
from recaster.models.loading import base_folder
from recaster.models.losses import LossSum, build_loss, count_correct, to_probabilities
from recaster.models.open_pictures import PictureClassifier
from recaster.models.picture_models import ALL_FRESH, build_picture_model, load_picture_model
from recaster.models.picture_views import list_views
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_BATCH_ROWS = 256


class ImageClassification:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "image"
    architectures = ALL_FRESH
    served_by = "pyfunc_image"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Shape and range of each picture."""
        from recaster.data.contract_images import collect_pictures

        return collect_pictures(raw)

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, labelled, unique, of the recipe's shape and range."""
        from recaster.data.contract_images import image_rules

        return image_rules(recipe.data, recipe.contract)

    def prepare(
        self,
        recipe: Recipe,
        raw: Path,
        accepted: NDArray[np.int64],
        base: Path | None,  # noqa: ARG002 - pictures are cut as the recipe says
        folder: Path,
    ) -> dict[str, Any]:
        """Group duplicates, split, write shards."""
        from recaster.data.picture_splits import write_picture_splits

        return write_picture_splits(raw, accepted, recipe.data, recipe.split, folder)

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Which network, for which pictures and labels, of which size."""
        image, model = stated(recipe.data.image), recipe.model
        return {
            "architecture": model.base.partition(":")[2] if model.from_scratch else None,
            "labels": recipe.data.labels,
            "channels": image.channels,
            "height": image.height,
            "width": image.width,
            "classes": len(recipe.data.labels),
            "hidden": model.width,
            "layers": model.depth,
            "dropout": model.dropout,
            "activation": model.activation,
            "size": model.input_size,
        }

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The network of the plan's `model_arguments`, with the base's weights where there is one."""
        base = base_folder(plan)
        pictures = None if base else Path(plan["prepared"])
        return build_picture_model(plan["model_arguments"], base, pictures=pictures)

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        """The split's pictures, memory-mapped."""
        shard = read_shard(folder, split)
        augmentation = Augmentation(
            plan["train"]["augmentation"],
            rows=len(shard.labels),
            classes=plan["model_arguments"]["classes"],
        )
        return PictureSet(shard, augmentation)

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """One of the losses of classification."""
        return build_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Rows with the right answer."""
        return count_correct(logits, targets)

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """Weights, configuration and preprocessing, and the network's source where it is of this package."""
        from recaster.customization.build import load_trained
        from recaster.exporting.adapter_form import merge_beside_adapter
        from recaster.exporting.open_folder import name_problem
        from recaster.exporting.picture_folder import write_picture_folder

        several = recipe.data.several_labels
        preprocessing = {
            "kind": self.kind,
            **stated(recipe.data.image).model_dump(),
            "several_labels": several,
            "flip": recipe.evaluate.flip,
            "shift_pixels": recipe.evaluate.shift_pixels,
        }
        trained = load_trained(self, plan, weights)
        model = merge_beside_adapter(trained, plan, folder, preprocessing=preprocessing)
        if isinstance(model, PictureClassifier):
            name_problem(model.network, several=several)
        write_picture_folder(folder, model, plan=plan, labels=recipe.data.labels, preprocessing=preprocessing)

    @torch.no_grad()
    def predict(
        self, artifact: Path, prepared: Path, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Probabilities, means over the artifact's views, and targets of a split, in the shard's order."""
        model, shard = load_picture_model(artifact).eval(), read_shard(prepared, split)
        described = artifact / "preprocessing.json"
        views = _views(read_json(described) if described.exists() else {})
        labels = torch.from_numpy(shard.labels)
        # Convolutions are about twice as fast so; torch's own types leave the memory format out.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pieces = []
        for start in range(0, len(shard.labels), _BATCH_ROWS):
            images = torch.from_numpy(shard.scaled(slice(start, start + _BATCH_ROWS)))
            answers = [to_probabilities(model(view), labels) for view in list_views(images, **views)]
            pieces.append(torch.stack(answers).mean(0))
        return torch.cat(pieces).numpy(), shard.labels

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:
        """Those of classification, and top-5 accuracy."""
        from recaster.evaluation.metrics import classification_metrics, top5_accuracy

        return {**classification_metrics(section), "top5_accuracy": top5_accuracy}

    def report(
        self,
        recipe: Recipe,
        predictions: NDArray[np.float64],
        targets: NDArray[np.int64],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """Confusion and reliability, a row a class, and slices by brightness, contrast and group."""
        from recaster.evaluation.classification_report import report_classes
        from recaster.evaluation.slices import cut_in_quarters

        brightness, contrast = measure_light(read_shard(prepared, "test"))
        slices = {
            "brightness": cut_in_quarters(brightness, _name_range),
            "contrast": cut_in_quarters(contrast, _name_range),
            "group": read_slice_groups(prepared, "test"),
        }
        return report_classes(recipe, predictions, targets, folder, slices=slices)

    def explain(
        self,
        artifact: Path,
        recipe: Recipe,  # noqa: ARG002
        *,
        predictions: NDArray[np.float64],
        targets: NDArray[np.int64],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """The worst errors as pictures, each beside where its answer comes from."""
        from recaster.evaluation.explain import map_activation
        from recaster.evaluation.picture_plots import plot_worst_errors

        model, shard = load_picture_model(artifact).eval(), read_shard(prepared, "test")

        def explain(pictures: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
            images = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
            return map_activation(model, images, torch.from_numpy(classes)).numpy()

        plot_worst_errors(
            load=lambda rows: shard.scaled(rows).transpose(0, 2, 3, 1),
            explain=explain,
            probabilities=predictions,
            targets=targets,
            labels=read_json(prepared / "splits.json")["labels"],
            path=folder / "worst_errors.png",
        )
        return {}


def _views(described: Mapping[str, Any]) -> dict[str, Any]:
    return {"flip": described.get("flip", False), "shift_pixels": described.get("shift_pixels", 0)}


def _name_range(least: float, most: float) -> str:
    return f"{least:.2f} to {most:.2f}"


WORKLOAD = ImageClassification()
