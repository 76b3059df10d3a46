"""Image generation: new pictures like those of a data set, of a class where it is asked for.

digit-0000  8x8x1 pixels, with noise   →   generator against discriminator   →   noise → 8x8x1 pixels

Two networks train in turns (`models.adversarial`); the generator's moving average comes out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.errors import CollapsedError
from recaster.core.files import read_json, write_json
from recaster.data.augmentation import Augmentation
from recaster.data.noisy_pictures import NoisyPictures, draw_noise
from recaster.data.picture_set import PictureSet
from recaster.data.shards import Shard, read_shard
from recaster.models import generator as generator_source
from recaster.models.adversarial import Adversarial
from recaster.models.adversarial_losses import build_adversarial_loss, count_distinct, energy_distance_sum
from recaster.models.generator import Generator
from recaster.models.generators import (
    ADVERSARY,
    ADVERSARY_CONFIG,
    FRESH,
    build_players,
    find_arguments,
    load_generator,
)
from recaster.models.loading import base_folder
from recaster.models.losses import LossSum
from recaster.recipe.section import stated
from recaster.training.trainable import TrainingSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from recaster.data.contract import RowRule
    from recaster.recipe.evaluation import EvaluateSection
    from recaster.recipe.schema import Recipe
    from recaster.workloads.protocol import MetricFunction

_BATCH_ROWS, _SKETCHED = 256, 16


class ImageGeneration:
    """The workload; see `workloads.protocol.Workload` for what each part is for."""

    kind = "image"
    architectures = tuple(FRESH)
    served_by = "pyfunc_generator"

    def facts(self, raw: Path) -> pd.DataFrame:
        """Shape and range of each picture."""
        from recaster.data.contract_images import collect_pictures

        return collect_pictures(raw)

    def rules(self, recipe: Recipe) -> list[RowRule]:
        """Readable, unique, of the recipe's shape and range; labelled where there are labels."""
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
        """Group duplicates, split, write shards, and the features that samples are compared with."""
        from recaster.data.generation_reference import open_encoder, write_references
        from recaster.data.picture_splits import write_picture_splits

        facts = write_picture_splits(raw, accepted, recipe.data, recipe.split, folder)
        shape, size = stated(recipe.data.image), recipe.evaluate.encoder_size
        comparison = {
            "image": shape.model_dump(),
            "encoder_size": size,
            "near_duplicate_distance": recipe.split.near_duplicate_distance,
        }
        write_json(folder / "comparison.json", comparison)
        write_references(folder, open_encoder(folder, shape, size))
        return facts

    def model_arguments(self, recipe: Recipe) -> dict[str, Any]:
        """Which generator, for which pictures and classes."""
        image, model = stated(recipe.data.image), recipe.model
        return {
            "architecture": model.base.partition(":")[2] if model.from_scratch else None,
            "channels": image.channels,
            "height": image.height,
            "width": image.width,
            "hidden": model.width,
            "noise": model.noise,
            "classes": len(recipe.data.labels) if model.conditional else 0,
        }

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        """Both networks, with the base's weights where there is one."""
        critic = Path(plan["critic"]) if plan.get("critic") else None
        return build_players(
            plan["model_arguments"], plan["train"]["adversary"], base_folder(plan), critic=critic
        )

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        """The split's pictures, memory-mapped, each with noise."""
        shard = read_shard(folder, split)
        augmentation = Augmentation(plan["train"]["augmentation"], rows=len(shard.labels), classes=0)
        noise = find_arguments(plan["model_arguments"], base_folder(plan))["noise"]
        return NoisyPictures(PictureSet(shard, augmentation), noise=noise)

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        """That of the part whose turn it is; validation's is the distance to the real pictures."""
        return build_adversarial_loss(section["name"]) if training else energy_distance_sum

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Generated pictures of a pass that are no near copies of each other."""
        return count_distinct(logits, targets)

    @torch.no_grad()
    def sketch(self, model: nn.Module, plan: dict[str, Any]) -> Tensor:
        """The same sixteen pictures each time, `(16, channels, height, width)` in 0..1."""
        assert isinstance(model, Adversarial)  # noqa: S101
        device = next(model.parameters()).device
        generator, numbers = model.generator, np.arange(_SKETCHED)
        noise = torch.from_numpy(draw_noise(numbers + plan["train"]["seed"], generator.noise)).to(device)
        classes = torch.from_numpy(numbers % max(1, generator.classes)).to(device)
        drawn: Tensor = generator(noise, classes if generator.classes else None)
        return drawn

    def check_health(self, validations: Sequence[Mapping[str, Any]], train: Mapping[str, Any]) -> None:
        """See `training.trainable.Watched`."""
        section = train["adversary"]
        last = validations[-section["collapse_validations"] :]
        if len(last) < section["collapse_validations"]:
            return
        shares = [record["accuracy"] for record in last]
        if max(shares) >= section["min_distinct"]:
            return
        raise CollapsedError(
            "The generator has collapsed: nearly all that it makes is the same.",
            where=f"step {last[-1]['step']}, validation split",
            value=f"of the pictures generated, {', '.join(f'{share:.1%}' for share in shares)} were no near "
            f"copies of each other in the last {len(shares)} validations; train.adversary.min_distinct is "
            f"{section['min_distinct']:.1%}",
            repair="lower both learning rates, add train.adversary.penalty: r1, or set train.adversary.turns "
            "higher; then run again",
        )

    def export(self, plan: dict[str, Any], recipe: Recipe, weights: Path, folder: Path) -> None:
        """The generator with its source; the discriminator beside it, for who trains it further."""
        from safetensors.torch import save_file

        from recaster.customization.build import load_trained
        from recaster.exporting.artifact import write_artifact

        model = load_trained(self, plan, weights)
        assert isinstance(model, Adversarial)  # noqa: S101
        save_file(model.generator.state_dict(), folder / "model.safetensors")
        save_file(model.discriminator.state_dict(), folder / ADVERSARY)
        write_json(folder / ADVERSARY_CONFIG, {"width": model.discriminator.width})
        write_artifact(
            folder,
            modeling=Path(generator_source.__file__ or ""),
            arguments=find_arguments(plan["model_arguments"], base_folder(plan)),
            labels=recipe.data.labels if recipe.model.conditional else [],
            preprocessing={"kind": "noise", **stated(recipe.data.image).model_dump()},
        )

    def predict(self, artifact: Path, prepared: Path, split: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """As many new pictures as the split has, of its classes, and its own: see `generation_metrics`."""
        from recaster.data.generation_reference import open_encoder
        from recaster.evaluation.generation_metrics import (
            arrange_generated,
            arrange_real,
            find_neighbours,
            nearest_pictures,
        )
        from recaster.recipe.data import ImageShape

        told, shard, train = (
            read_json(prepared / "comparison.json"),
            read_shard(prepared, split),
            read_shard(prepared, "train"),
        )
        pictures = _generate(load_generator(artifact), shard.labels)
        encoder = open_encoder(prepared, ImageShape.model_validate(told["image"]), told["encoder_size"])
        generated = encoder.features(torch.from_numpy(pictures)).numpy()
        cached = prepared / f"{split}.features.npy"
        real = np.load(cached) if cached.exists() else encoder.features(_pictures(shard)).numpy()
        precise, recalled = find_neighbours(generated, real)
        nearest, _ = nearest_pictures(pictures, train.scaled, len(train.labels))
        copied = nearest <= told["near_duplicate_distance"]
        predictions = arrange_generated(generated.astype(np.float64), copied=copied, precise=precise)
        return predictions, arrange_real(real.astype(np.float64), recalled=recalled)

    def metrics(self, section: EvaluateSection) -> Mapping[str, MetricFunction]:  # noqa: ARG002
        """Distances of the two distributions, their overlap, and copies of training pictures."""
        from recaster.evaluation.generation_metrics import GENERATION_METRICS

        return GENERATION_METRICS

    def report(
        self,
        recipe: Recipe,
        predictions: NDArray[np.float64],
        targets: NDArray[Any],
        prepared: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """The same distances of real training pictures, and of a Gaussian's, as bars to hold them against."""
        from recaster.evaluation.generation_report import report_generation

        return report_generation(
            predictions, targets, prepared, encoder=recipe.evaluate.encoder, folder=folder
        )

    def answers(self, folder: Path, prepared: Path) -> bool:
        """Whether the base is a generator of this data's classes, to be measured before any training."""
        config, told = read_json(folder / "config.json"), read_json(prepared / "splits.json")
        classes = config.get("arguments", {}).get("classes", -1)
        return config.get("architecture") == "generator" and classes in (0, len(told["labels"]))

    def write_samples(self, artifact: Path, prepared: Path, recipe: Recipe) -> dict[str, Any]:
        """How far generated pictures, and held-out real ones, are from the nearest training picture."""
        from recaster.evaluation.generation_report import compare_with_training

        shard, count = read_shard(prepared, "test"), recipe.evaluate.samples
        pictures = _generate(load_generator(artifact), shard.labels[:count])
        return {"memorisation": compare_with_training(pictures, shard, read_shard(prepared, "train"))}

    def illustrate(self, artifact: Path, prepared: Path, training: Path | None, folder: Path) -> None:
        """Sheets of samples, of the way between two, of samples over time, and beside training pictures."""
        from recaster.evaluation.generation_report import draw_nearest, draw_over_time, draw_sheet, walk

        model, labels = load_generator(artifact), read_json(artifact / "config.json")["labels"]
        classes = np.arange(64) % 8 if not labels else np.repeat(np.arange(len(labels)), 8)
        pictures = _generate(model, classes)
        names = labels or [""] * 8
        draw_sheet(pictures.reshape(len(names), 8, *pictures.shape[1:]), names, folder / "samples.png")
        steps, noise = 10, draw_noise(np.arange(16), model.noise)
        paths = np.concatenate([walk(noise[n], noise[n + 8], steps) for n in range(8)])
        chosen = np.repeat(np.arange(8) % max(1, len(labels)), steps)
        between = _draw(model, paths, chosen).reshape(8, steps, *pictures.shape[1:])
        draw_sheet(
            between, [labels[n % len(labels)] if labels else "" for n in range(8)], folder / "between.png"
        )
        draw_nearest(pictures[:: max(1, len(pictures) // 16)][:16], read_shard(prepared, "train"), folder)
        if training is not None:
            draw_over_time(training, folder / "over_time.png")


def _generate(model: Generator, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    """A picture for each of `classes`, with seeds from 0 on: `(rows, channels, height, width)`."""
    return _draw(model, draw_noise(np.arange(len(classes)), model.noise), classes)


@torch.no_grad()
def _draw(model: Generator, noise: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
    pieces = [
        model(
            torch.from_numpy(noise[start : start + _BATCH_ROWS]),
            torch.from_numpy(classes[start : start + _BATCH_ROWS]) if model.classes else None,
        )
        for start in range(0, len(noise), _BATCH_ROWS)
    ]
    return torch.cat(pieces).numpy()


def _pictures(shard: Shard) -> Tensor:
    return torch.from_numpy(shard.scaled(slice(None)))


WORKLOAD = ImageGeneration()
