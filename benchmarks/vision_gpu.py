"""How fast, and how well, do the recipes for all of CIFAR-10 learn on one GPU?

The recipes' own sections, trained by one rank as a cast would. The machine needs no more than torch,
numpy, safetensors, pydantic, ruamel.yaml and Pillow: no Prefect, no MLflow; and pip, with a package index,
for the base weights. Seconds of training are from the first to the last record; starting the process and
preparing the data are told apart.

    RECASTER_TEST_DATA=DIR make bench-vision-gpu
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.public_data import ROOT
from benchmarks.record import target, write_result
from recaster.bases.catalogue import find_known
from recaster.bases.fetch import fetch_base
from recaster.core.files import read_json, write_json
from recaster.customization.build import load_trained
from recaster.data.shards import Shard, read_shard, write_shard
from recaster.models.losses import to_probabilities
from recaster.models.picture_views import list_views
from recaster.recipe.load import load_recipe
from recaster.recipe.schema import Recipe
from recaster.training.journal import JOURNAL, read_journal
from recaster.workloads.image_classification import WORKLOAD

_RECIPES = ("cifar10-airbench", "cifar10-efficientnet")
_ACCURACY, _SECONDS = 0.93, 90
_ROWS = 1000


def main() -> int:
    """Prepare, train, measure; without data or a GPU say so, and return 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--recipe", nargs="+", choices=_RECIPES, default=_RECIPES)
    parser.add_argument("--set", action="append", default=[], help="as recaster's")
    asked = parser.parse_args()
    lacking = "RECASTER_TEST_DATA names no folder" if "RECASTER_TEST_DATA" not in os.environ else ""
    if asked.device == "cuda" and not torch.cuda.is_available():
        lacking = "there is no GPU"
    if lacking:
        sys.stderr.write(f"SKIPPED: {lacking}\n")
        return 1
    overrides = [f"distributed.device={asked.device}", *asked.set]
    rows = []
    for name in asked.recipe:
        path = f"recipes/image-classification/{name}.yaml"
        with tempfile.TemporaryDirectory() as folder:
            rows.append({"recipe": path, **_measure(load_recipe(ROOT / path, overrides), Path(folder))})
        sys.stdout.write(f"{rows[-1]}\n")
    if asked.device == "cuda" and not asked.set and len(rows) == len(_RECIPES):
        write_result("vision-gpu", __doc__.splitlines()[0], rows, _targets(rows), ["torch", "numpy"])
    return 0


def _targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both figures, asked of one recipe."""
    found = []
    for row in rows:
        name, score, seconds = Path(row["recipe"]).stem, row["accuracy"], row["train_seconds"]
        found.append(target(f"{name}, one GPU: accuracy", f">= {_ACCURACY}", score, met=score >= _ACCURACY))
        found.append(
            target(
                f"{name}, one GPU: seconds of training", f"<= {_SECONDS}", seconds, met=seconds <= _SECONDS
            )
        )
    return found


def _measure(recipe: Recipe, folder: Path) -> dict[str, Any]:
    prepared, run_dir = folder / "prepared", folder / "run"
    prepared.mkdir()
    run_dir.mkdir()
    started = time.perf_counter()
    _prepare(recipe, prepared)
    prepare_seconds = time.perf_counter() - started
    plan = {
        "workload_module": WORKLOAD.__module__,
        "prepared": str(prepared),
        "base": _fetch_base(recipe, folder),
        "model_arguments": WORKLOAD.model_arguments(recipe),
        **{
            name: getattr(recipe, name).model_dump()
            for name in ("customize", "train", "distributed", "communication")
        },
    }
    write_json(run_dir / "plan.json", plan)
    started = time.perf_counter()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    subprocess.run([*command, "-m", "recaster.training", str(run_dir)], check=True)
    wall_seconds = time.perf_counter() - started
    journal, result = read_journal(run_dir / JOURNAL), read_json(run_dir / "result.json")
    return {
        "device": torch.cuda.get_device_name() if result["device"] == "cuda" else "cpu",
        "accuracy": round(_accuracy(recipe, plan, run_dir, prepared), 4),
        "train_seconds": round(journal[-1]["time"] - journal[0]["time"], 1),
        "wall_seconds": round(wall_seconds, 1),
        "prepare_seconds": round(prepare_seconds, 1),
        "steps": result["steps"],
        "peak_memory_mib": result["peak_memory_mib"],
        "curve": [
            [record["epoch"] + 1, round(record["accuracy"], 4)]
            for record in journal
            if record["kind"] == "validation"
        ],
    }


def _fetch_base(recipe: Recipe, folder: Path) -> str | None:
    """The folder of the recipe's base weights; None where it has fresh ones."""
    if recipe.model.base.startswith("scratch:"):
        return None
    known = find_known(recipe.model.base)
    assert known is not None
    base = folder / "base"
    base.mkdir()
    fetch_base(
        known.reference,
        base,
        downloads=folder / "downloads",
        offline=False,
        licence=known.licence,
        say=print,
    )
    return str(base)


def _prepare(recipe: Recipe, folder: Path) -> None:
    """The shards of the lossy copy, the recipe's share of them for validation."""
    data = Path(os.environ["RECASTER_TEST_DATA"]) / "cifar10"
    pictures, labels = _decode(data / "train.zip", recipe.data.labels)
    order = np.random.default_rng(recipe.split.seed).permutation(len(labels))
    assert recipe.split.validation is not None
    held = round(recipe.split.validation * len(labels))
    for split, rows in (("validation", order[:held]), ("train", order[held:])):
        _write(folder, split, pictures[rows], labels[rows])
    _write(folder, "test", *_decode(data / "test.zip", recipe.data.labels))


def _decode(path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    pictures, labels = [], []
    with zipfile.ZipFile(path) as packed:
        for name in sorted(name for name in packed.namelist() if name.endswith(".jpg")):
            with Image.open(io.BytesIO(packed.read(name))) as picture:
                pictures.append(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
            labels.append(names.index(name.split("/")[-2]))
    return np.stack(pictures), np.array(labels)


def _write(folder: Path, split: str, pictures: np.ndarray, labels: np.ndarray) -> None:
    ids = [str(number) for number in range(len(labels))]
    write_shard(folder, split, Shard(images=pictures, labels=labels, ids=ids, maximum=255.0))


@torch.no_grad()
def _accuracy(recipe: Recipe, plan: dict[str, Any], run_dir: Path, prepared: Path) -> float:
    """Over the test split, by the recipe's views of each picture, in float32."""
    device = recipe.distributed.device
    model = load_trained(WORKLOAD, plan, run_dir / "weights.safetensors").eval().to(device)
    shard, right = read_shard(prepared, "test"), 0
    for start in range(0, len(shard.labels), _ROWS):
        images = torch.from_numpy(shard.scaled(slice(start, start + _ROWS))).to(device)
        labels = torch.from_numpy(shard.labels[start : start + _ROWS]).to(device)
        views = list_views(images, flip=recipe.evaluate.flip, shift_pixels=recipe.evaluate.shift_pixels)
        answer = torch.stack([to_probabilities(model(view), labels) for view in views]).mean(0)
        right += int((answer.argmax(1) == labels).sum())
    return right / len(shard.labels)


if __name__ == "__main__":
    sys.exit(main())
