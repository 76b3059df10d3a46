"""Image classification: one label a picture.

digit-0000  "0"  8x8x1 pixels 0..16   →   train.images.npy (rows, 1, 8, 8) 0..1   →   10 probabilities
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.core.files import read_json, write_json
from recaster.data.shards import Shard, read_shard, write_shard
from recaster.models import small_cnn
from recaster.models.losses import LossSum, build_loss
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.data import ImageShape
    from recaster.recipe.schema import EvaluateSection, Recipe
    from recaster.workloads.protocol import MetricFunction

_BATCH_ROWS = 256


class PictureSet:
    """One split of prepared pictures, augmented on request."""

    def __init__(self, shard: Shard, *, shift_pixels: int) -> None:
        self._shard, self._shift = shard, shift_pixels

    uniform = True
    lengths = None

    def __len__(self) -> int:
        """Pictures in the split."""
        return len(self._shard.labels)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of `rows`."""
        return [self._shard.ids[row] for row in rows.tolist()]

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Pictures `(rows, channels, height, width)` and labels `(rows,)`; shifted when a seed is given."""
        images = torch.from_numpy(self._shard.images[rows])
        labels = torch.from_numpy(self._shard.labels[rows])
        if seed is not None and self._shift:
            images = self._shifted(images, rows, seed)
        return images, labels

    def _shifted(self, images: Tensor, rows: NDArray[np.int64], seed: int) -> Tensor:
        """Each picture moved by its own offset, a function of (seed, row) and not of its batch."""
        side = 2 * self._shift + 1
        table = np.random.default_rng(seed).integers(0, side, (len(self), 2))
        padded = F.pad(images, [self._shift] * 4)
        height, width = images.shape[-2:]
        down, right = torch.from_numpy(table[rows]).unbind(1)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(len(rows)), :, down, right].contiguous()


class ImageClassification:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "image"
    architectures = ("small-cnn",)
    served_by = "pyfunc_image"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Shape and range of each picture."""
        from recaster.data.contract import collect_facts
        from recaster.data.contract_images import FACTS, describe_image

        return collect_facts(raw, describe_image, FACTS)

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, labelled, unique, of the recipe's shape and range."""
        from recaster.data.contract_images import image_rules

        return image_rules(recipe.data)

    def prepare(
        self,
        recipe: Recipe,
        raw: Path,
        accepted: NDArray[np.int64],
        base: Path | None,  # noqa: ARG002 - pictures are cut as the recipe says
        folder: Path,
    ) -> dict[str, Any]:
        """Group duplicates, split, scale to 0..1, write shards."""
        from recaster.data.packed import read_accepted
        from recaster.data.split import divide_records, group_duplicates

        records, image = read_accepted(raw, accepted), _shape(recipe)
        pixels = np.stack([record.pixels for record in records]).transpose(0, 3, 1, 2)
        pixels = ((pixels - image.minimum) / (image.maximum - image.minimum)).astype(np.float32)
        numbers = {label: number for number, label in enumerate(recipe.data.labels)}
        labels = np.array([numbers[record.label] for record in records], dtype=np.int64)
        groups = group_duplicates(
            pixels.reshape(len(pixels), -1), distance=recipe.split.near_duplicate_distance
        )
        published = [record.split for record in records]
        splits, left_out = divide_records(labels, groups, published, recipe.split)
        for name, rows in splits.items():
            ids = [records[row].id for row in rows.tolist()]
            write_shard(folder, name, Shard(images=pixels[rows], labels=labels[rows], ids=ids))
        counts = {name: len(rows) for name, rows in splits.items()}
        duplicates = len(groups) - len(set(groups.tolist()))
        per_label = {
            name: dict(sorted(Counter(labels[rows].tolist()).items())) for name, rows in splits.items()
        }
        facts = {"rows": counts, "duplicates": duplicates, "left_out": left_out}
        write_json(folder / "splits.json", {**facts, "labels": recipe.data.labels, "per_label": per_label})
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Shape, classes and size of the network."""
        image, model = _shape(recipe), recipe.model
        return {
            "channels": image.channels,
            "height": image.height,
            "width": image.width,
            "classes": len(recipe.data.labels),
            "hidden": model.width,
            "dropout": model.dropout,
            "activation": model.activation,
        }

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The network of the plan's `model_arguments`."""
        return small_cnn.build_model(**plan["model_arguments"])

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        """The split's pictures, memory-mapped."""
        return PictureSet(
            read_shard(folder, split), shift_pixels=plan["train"]["augmentation"]["shift_pixels"]
        )

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """One of the losses of classification."""
        return build_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Rows whose largest logit is the target's."""
        return (logits.argmax(1) == targets).sum()

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """Weights, configuration, preprocessing, and the network's own source."""
        from safetensors.torch import save_file

        from recaster.customization.build import load_merged
        from recaster.exporting.artifact import write_artifact

        save_file(load_merged(self, plan, weights).state_dict(), folder / "model.safetensors")
        write_artifact(
            folder,
            modeling=Path(small_cnn.__file__),
            arguments=plan["model_arguments"],
            labels=recipe.data.labels,
            preprocessing={"kind": self.kind, **_shape(recipe).model_dump()},
        )

    @torch.no_grad()
    def predict(
        self, artifact: Path, prepared: Path, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Probabilities and targets of a split, in the shard's order."""
        from safetensors.torch import load_file

        model = small_cnn.build_model(**read_json(artifact / "config.json")["arguments"])
        model.load_state_dict(load_file(artifact / "model.safetensors"))
        model.eval()
        shard = read_shard(prepared, split)
        pieces = [
            torch.from_numpy(np.array(shard.images[start : start + _BATCH_ROWS]))
            for start in range(0, len(shard.labels), _BATCH_ROWS)
        ]
        probabilities = torch.cat([model(piece).softmax(1) for piece in pieces]).double().numpy()
        return probabilities / probabilities.sum(1, keepdims=True), shard.labels

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:
        """Those of classification."""
        from recaster.evaluation.metrics import classification_metrics

        return classification_metrics(section)

    def report(
        self, recipe: Recipe, predictions: NDArray[np.float64], targets: NDArray[np.int64], folder: Path
    ) -> dict[str, Any]:
        """Confusion and reliability, and a row a class."""
        from recaster.evaluation.classification_report import report_classes

        return report_classes(recipe, predictions, targets, folder)


def _shape(recipe: Recipe) -> ImageShape:
    """The recipe's picture section, which `kind` says is there."""
    shape = recipe.data.image
    assert shape is not None  # noqa: S101
    return shape


WORKLOAD = ImageClassification()
