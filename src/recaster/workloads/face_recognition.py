"""Face recognition: pictures of people as vectors that are near for one person and far for two.

faces/anna/0001.png  "anna"  112x92x1   →   train.images.npy (rows, 1, 112, 92), anna is 0   →   128 numbers

The people of validation and test are never seen in training. What comes out knows no names: it compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.files import read_json, write_json
from recaster.data.augmentation import Augmentation
from recaster.data.picture_set import PictureSet
from recaster.data.shards import Shard, read_shard, stack_pictures, write_shard
from recaster.data.slice_groups import read_slice_groups, write_slice_groups
from recaster.models.face_embedder import FaceEmbedder, build_face_embedder, embed, load_face_embedder
from recaster.models.face_losses import build_face_loss, nearest_is_own
from recaster.models.loading import base_folder
from recaster.models.losses import LossSum
from recaster.models.picture_models import FRESH
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.data.packed import PackedRecord
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_BATCH_ROWS = 256
VERIFICATION = "verification.json"
"""Of the artifact: the threshold and how it was found, and whether mirror images are averaged in."""


class FaceRecognition:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "image"
    architectures = FRESH
    served_by = "pyfunc_face"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Shape, range and light of each picture, and how many its person has."""
        from recaster.data.contract_faces import collect_faces

        return collect_faces(raw)

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Those of pictures, and that each is of one named person."""
        from recaster.data.contract_faces import face_rules

        return face_rules(recipe.data)

    def prepare(
        self,
        recipe: Recipe,
        raw: Path,
        accepted: NDArray[np.int64],
        base: Path | None,  # noqa: ARG002 - pictures are cut as the recipe says
        folder: Path,
    ) -> dict[str, Any]:
        """Group duplicates, deal whole people to the splits, write shards."""
        from recaster.data.packed import read_accepted
        from recaster.data.split import group_duplicates
        from recaster.data.split_identities import divide_identities

        records = read_accepted(raw, accepted)
        pixels, minimum, maximum = stack_pictures(
            [record.pixels for record in records], stated(recipe.data.image)
        )
        groups = group_duplicates(
            pixels, distance=recipe.split.near_duplicate_distance, span=maximum - minimum
        )
        splits, left_out = divide_identities(
            [record.label for record in records], groups, [record.split for record in records], recipe.split
        )
        people: dict[str, list[str]] = {}
        for name, rows in splits.items():
            own = [records[row] for row in rows.tolist()]
            people[name], labels = _number_people(own)
            ids = [record.id for record in own]
            shard = Shard(images=pixels[rows], labels=labels, ids=ids, minimum=minimum, maximum=maximum)
            write_shard(folder, name, shard)
            write_slice_groups(folder, name, [record.group for record in own])
        facts = {
            "rows": {name: len(rows) for name, rows in splits.items()},
            "people": {name: len(names) for name, names in people.items()},
            "duplicates": len(groups) - len(set(groups.tolist())),
            "left_out": left_out,
        }
        write_json(folder / "splits.json", {**facts, "names": people})
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Which network, for which pictures, with how many outputs."""
        image, model = stated(recipe.data.image), recipe.model
        return {
            "architecture": model.base.partition(":")[2] if model.from_scratch else None,
            "labels": [str(number) for number in range(model.embedding)],
            "channels": image.channels,
            "height": image.height,
            "width": image.width,
            "classes": model.embedding,
            "hidden": model.width,
            "dropout": model.dropout,
            "activation": model.activation,
            "size": model.input_size,
        }

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """The network of the plan's `model_arguments`, with a head for the people of the training split."""
        prepared = Path(plan["prepared"])
        people = read_json(prepared / "splits.json")["people"]["train"]
        by_head = plan["train"]["loss"]["name"] != "triplet"
        return build_face_embedder(
            plan["model_arguments"],
            base_folder(plan),
            pictures=prepared,
            identities=people if by_head else None,
        )

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        """The split's pictures, memory-mapped."""
        shard = read_shard(folder, split)
        augmentation = Augmentation(plan["train"]["augmentation"], rows=len(shard.labels), classes=0)
        return PictureSet(shard, augmentation)

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """One of the losses of metric learning."""
        return build_face_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Pictures of a pass whose nearest other one is of their own person."""
        return nearest_is_own(logits, targets)

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """The network without its head, and the threshold that the validation split gives."""
        from recaster.customization.build import load_merged
        from recaster.exporting.picture_folder import write_picture_folder

        model = load_merged(self, plan, weights)
        assert isinstance(model, FaceEmbedder)  # noqa: S101
        preprocessing = {"kind": self.kind, **stated(recipe.data.image).model_dump()}
        write_picture_folder(folder, model.network, plan=plan, labels=[], preprocessing=preprocessing)
        write_json(folder / VERIFICATION, _choose_threshold(model, Path(plan["prepared"]), recipe.evaluate))

    def predict(
        self, artifact: Path, prepared: Path, split: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Embeddings of each person's pictures, and the person's number: see `evaluation.face_metrics`."""
        from recaster.evaluation.face_metrics import arrange

        about, shard = read_json(artifact / VERIFICATION), read_shard(prepared, split)
        vectors = _embed_shard(load_face_embedder(artifact), shard, flip=about["flip"])
        return arrange(vectors, shard.labels, about["threshold"])

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:  # noqa: ARG002
        """Those of pairs, and of looking a person up."""
        from recaster.evaluation.face_metrics import FACE_METRICS

        return FACE_METRICS

    def report(
        self,
        recipe: Recipe,
        predictions: NDArray[np.float64],
        targets: NDArray[np.int64],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """Curves, scores and retrieved faces as plots; pixels as baseline, and groups."""
        from recaster.evaluation.face_report import report_faces

        groups = read_slice_groups(prepared, "test")
        shard = read_shard(prepared, "test")
        return report_faces(predictions, targets, shard, groups, section=recipe.evaluate, folder=folder)


def _number_people(records: list[PackedRecord]) -> tuple[list[str], NDArray[np.int64]]:
    names = sorted({record.label for record in records})
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[record.label] for record in records], dtype=np.int64)


def _choose_threshold(model: FaceEmbedder, prepared: Path, section: EvaluateSection) -> dict[str, Any]:
    """The lowest one that keeps the recipe's rate of false accepts on the validation split."""
    from recaster.evaluation.face_metrics import arrange, find_threshold, score_pairs

    shard = read_shard(prepared, "validation")
    vectors = _embed_shard(model.eval(), shard, flip=section.flip)
    pairs = score_pairs(*arrange(vectors, shard.labels, 0.0))
    return {
        "threshold": find_threshold(pairs.others, section.false_accept_rate),
        "false_accept_rate": section.false_accept_rate,
        "people": len(np.unique(shard.labels)),
        "pairs_of_two_people": len(pairs.others),
        "flip": section.flip,
        "embedding": vectors.shape[1],
    }


def _embed_shard(model: FaceEmbedder, shard: Shard, *, flip: bool) -> NDArray[np.float64]:
    """Embeddings `(pictures, embedding)` in the shard's order."""
    # Convolutions are about twice as fast so; torch's own types leave the memory format out.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pieces = [
        embed(model, torch.from_numpy(shard.scaled(slice(start, start + _BATCH_ROWS))), flip=flip)
        for start in range(0, len(shard.labels), _BATCH_ROWS)
    ]
    return torch.cat(pieces).double().numpy()


WORKLOAD = FaceRecognition()
