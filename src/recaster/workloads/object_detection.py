"""Object detection: boxes with labels in a picture.

BloodImage_00000  RBC 78 336 184 435, WBC 260 177 491 376   →   train.images.npy (rows, 3, 240, 320),
    train.labels.npy (rows, boxes, 5)   →   at each point: classes and a box   →   boxes with scores
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import write_json
from recaster.data.box_augmentation import BoxAugmentation
from recaster.data.box_shards import Targets, read_box_shard, stack_boxes, write_box_shard
from recaster.data.shards import Shard, stack_pictures
from recaster.models import detector
from recaster.models.detection_loss import count_found, detection_loss
from recaster.models.detectors import BACKBONES, build_detector, load_detector, own_arguments
from recaster.models.loading import base_folder
from recaster.models.losses import LossSum
from recaster.models.open_detectors import PROCESSOR, OpenDetector, describe_detector_processor
from recaster.models.set_prediction import count_matched, set_prediction_loss
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_BATCH_ROWS = 32
_SET = "set-prediction"
_OVERLAP, _LEAST_SCORE = 0.6, 0.01
"""Of non-maximum suppression; and the weakest detection that average precision should still see."""


class BoxSet:
    """One split of prepared pictures with boxes, augmented on request."""

    uniform = True
    lengths = None

    def __init__(self, shard: Shard, boxes: Targets, augmentation: BoxAugmentation) -> None:
        self._shard, self._boxes, self._augmentation = shard, boxes, augmentation

    def __len__(self) -> int:
        """Pictures in the split."""
        return len(self._boxes)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of `rows`."""
        return [self._shard.ids[row] for row in rows.tolist()]

    def targets_in(self, rows: NDArray[np.int64]) -> int:
        """Boxes of `rows` before augmentation; a picture without any counts as one."""
        return int(np.maximum(self._shard.labels[rows], 1).sum())

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Pictures `(rows, channels, height, width)` in 0..1, boxes `(rows, boxes, 5)`; seeded: augmented."""
        return self._load(rows) if seed is None else self._augmentation.batch(self._load, rows, seed)

    def _load(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self._shard.scaled(rows)), torch.from_numpy(self._boxes[rows])


class ObjectDetection:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "boxes"
    architectures = BACKBONES
    served_by = "pyfunc_boxes"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Shape and range of each picture, labels and sizes of its boxes."""
        from recaster.data.contract import collect_facts
        from recaster.data.contract_boxes import FACTS, describe_boxes
        from recaster.data.contract_images import count_copies

        return count_copies(collect_facts(raw, describe_boxes, FACTS))

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, unique, of the recipe's shape; boxes inside, not empty, of known labels."""
        from recaster.data.contract_boxes import box_rules

        return box_rules(recipe.data, recipe.contract)

    def prepare(
        self,
        recipe: Recipe,
        raw: Path,
        accepted: NDArray[np.int64],
        base: Path | None,  # noqa: ARG002 - pictures are as the recipe says
        folder: Path,
    ) -> dict[str, Any]:
        """Group duplicates, split, write shards."""
        from recaster.data.boxes import parse_boxes
        from recaster.data.packed import read_accepted
        from recaster.data.split import divide_records, group_duplicates

        records, shape = read_accepted(raw, accepted), stated(recipe.data.boxes)
        pixels, minimum, maximum = stack_pictures([record.pixels for record in records], shape)
        numbers = {label: number for number, label in enumerate(recipe.data.labels)}
        boxes = stack_boxes([parse_boxes(record.text) for record in records], numbers)
        groups = group_duplicates(
            pixels, distance=recipe.split.near_duplicate_distance, span=maximum - minimum
        )
        published = [record.split for record in records]
        # Dealt out by each picture's rarest label, so that every split has some of it.
        splits, left_out = divide_records(_rarest(boxes), groups, published, recipe.split)
        for name, rows in splits.items():
            shard = Shard(
                images=pixels[rows],
                labels=groups[rows],
                ids=[records[row].id for row in rows.tolist()],
                minimum=minimum,
                maximum=maximum,
            )
            write_box_shard(folder, name, shard, boxes[rows])
        counts = {name: len(rows) for name, rows in splits.items()}
        duplicates = len(groups) - len(set(groups.tolist()))
        facts = {"rows": counts, "duplicates": duplicates, "left_out": left_out}
        per_label = {name: _count_labels(boxes[rows]) for name, rows in splits.items()}
        write_json(folder / "splits.json", {**facts, "labels": recipe.data.labels, "per_label": per_label})
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Which backbone, for which pictures and labels."""
        shape, model = stated(recipe.data.boxes), recipe.model
        return {
            "backbone": model.base.partition(":")[2] if model.from_scratch else None,
            "channels": shape.channels,
            "height": shape.height,
            "width": shape.width,
            "classes": len(recipe.data.labels),
            "labels": recipe.data.labels,
            "features": model.width,
        }

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The detector, with the base's weights where there is one.

        Raises:
            RecipeError: the recipe's loss is for another kind of detector.
        """
        model = build_detector(plan["model_arguments"], base_folder(plan))
        wanted = _SET if isinstance(model, OpenDetector) else "focal"
        if plan["train"]["loss"]["name"] != wanted:
            raise RecipeError(
                "The loss is for another kind of detector.",
                where="train.loss.name",
                value=plan["train"]["loss"]["name"],
                repair=f"write `loss: {{ name: {wanted} }}`",
            )
        return model

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        """The split's pictures, memory-mapped."""
        shard, boxes = read_box_shard(folder, split)
        return BoxSet(shard, boxes, BoxAugmentation(plan["train"]["augmentation"], rows=len(boxes)))

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:  # noqa: ARG002
        """The detection loss, over boxes.

        Raises:
            RecipeError: the recipe asks for another.
        """
        known = section["name"] in {"focal", _SET}
        if not known or section["consistency"]:
            raise RecipeError(
                "Detectors have the focal loss, or that of set prediction, with one for boxes beside it.",
                where="train.loss",
                value="consistency" if known else section["name"],
                repair="write `loss: { name: focal }`, or set-prediction for the DETR family",
            )
        if section["name"] == _SET:
            return set_prediction_loss
        return partial(detection_loss, gamma=section["gamma"])

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Boxes that some point or query finds."""
        answered_by_queries = bool(logits[0, 0, 2] < 0)
        return (count_matched if answered_by_queries else count_found)(logits, targets)

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """Weights, configuration and preprocessing, and the network's source where it is of this package."""
        from safetensors.torch import save_file

        from recaster.customization.build import load_trained
        from recaster.exporting.adapter_form import merge_beside_adapter
        from recaster.exporting.artifact import write_artifact
        from recaster.exporting.open_folder import write_open_folder

        preprocessing = {"kind": self.kind, **stated(recipe.data.boxes).model_dump()}
        trained = load_trained(self, plan, weights)
        model = merge_beside_adapter(trained, plan, folder, preprocessing=preprocessing)
        if isinstance(model, OpenDetector):
            shape = stated(recipe.data.boxes)
            write_open_folder(folder, network=model.network, tokenizer=base_folder(plan) or folder)
            told = describe_detector_processor(model, height=shape.height, width=shape.width)
            write_json(folder / PROCESSOR, told)
            write_json(folder / "preprocessing.json", preprocessing)
            return
        save_file(model.state_dict(), folder / "model.safetensors")
        write_artifact(
            folder,
            modeling=Path(detector.__file__),
            arguments=own_arguments(plan["model_arguments"], base_folder(plan)),
            labels=recipe.data.labels,
            preprocessing=preprocessing,
        )

    def predict(self, artifact: Path, prepared: Path, split: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Detections `(rows, most, 6)` and boxes `(rows, boxes, 5)` of a split, in the shard's order."""
        model, most = load_detector(artifact)
        shard, boxes = read_box_shard(prepared, split)
        # Convolutions are about twice as fast so; torch's own types leave the memory format out.
        model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pieces = [
            model.detect(
                torch.from_numpy(shard.scaled(slice(start, start + _BATCH_ROWS))),
                overlap=_OVERLAP,
                least_score=_LEAST_SCORE,
                most=most,
            )
            for start in range(0, len(boxes), _BATCH_ROWS)
        ]
        return torch.cat(pieces).double().numpy(), boxes

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:  # noqa: ARG002
        """Average precision at one half, and COCO's mean."""
        from recaster.evaluation.detection_metrics import DETECTION_METRICS

        return DETECTION_METRICS

    def report(
        self,
        recipe: Recipe,
        predictions: NDArray[np.float64],
        targets: NDArray[Any],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """Precision and recall, kinds of errors, pictures with boxes; COCO's figures by size and class."""
        from recaster.evaluation.detection_report import report_detections

        shard, _ = read_box_shard(prepared, "test")
        return report_detections(
            predictions,
            targets,
            labels=recipe.data.labels,
            load=lambda rows: shard.scaled(rows).transpose(0, 2, 3, 1),
            folder=folder,
        )


def _rarest(boxes: Targets) -> NDArray[np.int64]:
    """Of each picture the class that is rarest in the whole set; the number after the last for none."""
    present = [np.unique(row[row[:, 0] >= 0, 0]).astype(np.int64) for row in boxes]
    counts = np.bincount(np.concatenate(present)) if present and any(map(len, present)) else np.zeros(1)
    none = len(counts)
    return np.array([own[np.argmin(counts[own])] if len(own) else none for own in present], dtype=np.int64)


def _count_labels(boxes: Targets) -> dict[int, int]:
    numbers, counts = np.unique(boxes[:, :, 0][boxes[:, :, 0] >= 0].astype(int), return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


WORKLOAD = ObjectDetection()
