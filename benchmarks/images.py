"""What does the input path of pictures cost?

Decoding, from files to a packed set: as many pictures a second as there are cores for, against a plain
loop of Pillow in one thread. Training, from a prepared split in memory-mapped shards: the milliseconds of a
batch with the recipe's augmentation against those of the model's own step (forward, backward, AdamW), in
one thread each, in turn. Sets are CIFAR-10's test pictures where RECASTER_TEST_DATA names the public sets
(JPEGs of 32x32), and always pictures of noise with gradients, written by this script (JPEGs of 256x256).

    make bench-images
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from benchmarks.record import target, write_result
from recaster.data.augmentation import Augmentation
from recaster.data.image_sources import read_images
from recaster.data.picture_set import PictureSet
from recaster.data.shards import Shard, read_shard, stack_pictures, write_shard
from recaster.models import mobilenet_v2, resnet, small_cnn
from recaster.recipe.data import ImageShape
from recaster.recipe.training import Augmentation as AugmentationSection

_ROUNDS, _BATCHES = 5, 6
_MOST = 0.10
_PICTURES = 600
_CROP_AND_FLIP = {"shift_pixels": 4, "horizontal_flip": True}
_MUCH = {**_CROP_AND_FLIP, "rotate_degrees": 8.0, "zoom": 0.1, "brightness": 0.2, "contrast": 0.2}


def _write_pictures(folder: Path, *, side: int) -> Path:
    """A zip of label/name.jpg with pictures that compress like photographs."""
    random, path = np.random.default_rng(1), folder / f"{side}.zip"
    ramp = np.linspace(0, 200, side)
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(_PICTURES):
            base = np.add.outer(ramp * random.random(), ramp * random.random())[:, :, None]
            noise = random.normal(0, 12, (side, side, 3))
            picture = Image.fromarray((base * random.random(3) + noise + 20).clip(0, 255).astype(np.uint8))
            file = folder / "one.jpg"
            picture.save(file, quality=85)
            packed.write(file, f"{'ab'[number % 2]}/{number:04}.jpg")
    return path


def _decode_plain(path: Path) -> int:
    """As a first script would: one thread, Pillow, one array a picture."""
    count = 0
    with zipfile.ZipFile(path) as packed:
        for name in packed.namelist():
            if name.endswith((".jpg", ".png")):
                with packed.open(name) as file:
                    np.asarray(Image.open(file).convert("RGB"))
                count += 1
    return count


def _measure_decoding(name: str, path: Path, side: int) -> dict[str, Any]:
    shape = ImageShape(height=side, width=side, channels=3, minimum=0.0, maximum=255.0)

    def ours() -> int:
        return sum(record.pixels is not None for record in read_images(path, shape, None) or [])

    rates = _rates({"plain": lambda: _decode_plain(path), "ours": ours})
    return {
        "what": "decoding",
        "pictures": name,
        "cores": os.cpu_count(),
        "ours_pictures_per_second": round(rates["ours"]),
        "plain_pictures_per_second": round(rates["plain"]),
        "ratio": round(rates["ours"] / rates["plain"], 2),
    }


def _rates(ways: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Pictures a second, the median of rounds in which each way has its turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            count = way()
            found[name].append(count / (time.perf_counter() - started))
    return {name: statistics.median(rates) for name, rates in found.items()}


def _make_shard(folder: Path, path: Path, side: int) -> Shard:
    shape = ImageShape(height=side, width=side, channels=3, minimum=0.0, maximum=255.0)
    pixels = [record.pixels for record in read_images(path, shape, None) or [] if record.pixels is not None]
    images, minimum, maximum = stack_pictures(pixels, shape)
    labels = np.arange(len(images)) % 10
    ids = [str(number) for number in range(len(images))]
    write_shard(
        folder, "train", Shard(images=images, labels=labels, ids=ids, minimum=minimum, maximum=maximum)
    )
    return read_shard(folder, "train")


def _models(side: int) -> dict[str, nn.Module]:
    size: dict[str, Any] = {"channels": 3, "height": side, "width": side, "classes": 10}
    small: dict[str, Any] = {"hidden": 32, "dropout": 0.1, "activation": "relu"}
    models = {"mobilenet-v2": mobilenet_v2.build_model(**size, dropout=0.2)}
    if side == 32:
        models |= {
            "mobilenet-v2 at 96": mobilenet_v2.build_model(**size, dropout=0.2, size=96),
            "resnet-20": resnet.build_model(**size, dropout=0.0, depth=20),
            "small-cnn": small_cnn.build_model(**size, **small),
        }
    return models


def _measure_steps(name: str, shard: Shard, side: int, batch: int) -> list[dict[str, Any]]:
    rows, order = [], np.random.default_rng(2)
    for kind, changes in (("crop and flip", _CROP_AND_FLIP), ("and rotation, zoom, colour", _MUCH)):
        section = AugmentationSection.model_validate(changes).model_dump()
        data = PictureSet(shard, Augmentation(section, rows=len(shard.labels), classes=10))
        for model_name, model in _models(side).items():
            model.train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
            inputs, steps = [], []
            for number in range(_BATCHES * _ROUNDS):
                chosen = order.permutation(len(shard.labels))[:batch]
                started = time.perf_counter()
                images, labels = data.batch(chosen, seed=number)
                read = time.perf_counter()
                F.cross_entropy(model(images), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
                if number >= _BATCHES:
                    inputs.append(read - started)
                    steps.append(time.perf_counter() - read)
            spent, step = statistics.median(inputs), statistics.median(steps)
            rows.append(
                {
                    "what": "training",
                    "pictures": name,
                    "model": model_name,
                    "augmentation": kind,
                    "batch": batch,
                    "input_milliseconds": round(1000 * spent, 2),
                    "step_milliseconds": round(1000 * step, 2),
                    "share": round(spent / step, 4),
                    "input_pictures_per_second": round(batch / spent),
                }
            )
            sys.stderr.write(f"{rows[-1]}\n")
    return rows


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {"synthetic, 256x256": (_write_pictures(folder, side=256), 256, 16)}
        if given := os.environ.get("RECASTER_TEST_DATA"):
            sets["CIFAR-10 test, 32x32"] = (Path(given) / "cifar10" / "test.zip", 32, 64)
        else:
            sys.stderr.write(
                "SKIPPED: CIFAR-10, since RECASTER_TEST_DATA names no folder of public data sets\n"
            )
            sets["synthetic, 32x32"] = (_write_pictures(folder, side=32), 32, 64)
        decoding, training = [], []
        for title, (path, side, batch) in sets.items():
            decoding.append(_measure_decoding(title, path, side))
            sys.stderr.write(f"{decoding[-1]}\n")
            training += _measure_steps(title, _make_shard(folder, path, side), side, batch)
    _write(decoding, training)


def _write(decoding: list[dict[str, Any]], training: list[dict[str, Any]]) -> None:
    targets = [
        target(
            f"input path over the step, {row['model']}, {row['pictures']}, {row['augmentation']}",
            f"<= {_MOST:.0%}",
            row["share"],
            met=row["share"] <= _MOST,
        )
        for row in training
    ]
    write_result(
        "images",
        "What does the input path of pictures cost?",
        [*decoding, *training],
        targets,
        ["torch", "pillow"],
    )


if __name__ == "__main__":
    main()
