"""Image classification: all of CIFAR-10 from fresh weights and from ImageNet's, and a fifth of it.

RECASTER_TEST_DATA=DIR python -m benchmarks.vision --only classification

The recipes' own threads and device are taken; on a machine with a GPU they are trained there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.public_data import CIFAR10, make_project
from benchmarks.quality import headline
from benchmarks.record import describe_hardware, target
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.core.steps import StepResult
from recaster.training.journal import read_journal

_FOLDER = "recipes/image-classification"
_FRESH, _TUNED = f"{_FOLDER}/cifar10-airbench.yaml", f"{_FOLDER}/cifar10-efficientnet.yaml"
_BASE = f"{_FOLDER}/cifar10-mobilenet.yaml"
_MODELS = {
    _FRESH: "airbench-95, fresh weights",
    _TUNED: "EfficientNet-Lite0, ImageNet weights",
    _BASE: "MobileNetV2, ImageNet weights, a fifth of the data",
}
_OWN: dict[str, tuple[str, ...]] = {_BASE: ("evaluate.flip=true",)}
"""Beside the recipe: answers are means over a picture and its mirror image, as the other recipes have it."""
_GPU_ACCURACY, _GPU_SECONDS = 0.93, 90
_CPU_ACCURACY, _CPU_MINUTES = 0.85, 25


def run(work: Path, *overrides: str) -> list[dict[str, Any]]:
    """Train and evaluate each in a project below `work`; finished steps are found again."""
    project = make_project(work / "classification")
    return [measure(project, recipe, *overrides) for recipe in _MODELS]


def measure(project: Path, recipe: str, *overrides: str) -> dict[str, Any]:
    """The row of one recipe on the lossy copy of the data."""
    cast = pipeline.open_cast(project / recipe, (*CIFAR10, *_OWN.get(recipe, ()), *overrides))
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    return describe(recipe, pipeline.run_to(cast, "train", SilentReporter()), evaluated)


def describe(recipe: str, trained: StepResult, evaluated: StepResult) -> dict[str, Any]:
    """Figures with intervals, time, and the learning curve."""
    journal, plan = read_journal(trained.path / "journal.jsonl"), read_json(trained.path / "plan.json")
    trained_as = read_json(trained.path / "result.json")
    curve = [record for record in journal if record["kind"] == "validation"]
    began = journal[0]["time"]
    return {
        "workload": "image-classification",
        "recipe": recipe,
        "data": "CIFAR-10, a lossy copy, its own test split",
        "model": _MODELS[recipe],
        "pictures": evaluated.facts["rows"],
        **headline("accuracy", evaluated.facts["metrics"]["accuracy"]),
        **{
            name: {key: round(value, 4) for key, value in entry.items()}
            for name, entry in evaluated.facts["metrics"].items()
        },
        "device": trained_as["device"],
        "hardware": describe_hardware(),
        "threads": plan["distributed"]["threads_per_rank"],
        "train_seconds": round(journal[-1]["time"] - began, 1),
        "minutes": round((journal[-1]["time"] - began) / 60, 1),
        "cpu_seconds": trained.facts["cpu_seconds"],
        "curve": [
            {
                "epoch": record["epoch"] + 1,
                "minutes": round((record["time"] - began) / 60, 1),
                "accuracy": round(record["accuracy"], 4),
            }
            for record in curve
        ],
    }


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that were asked for; those of a GPU are not met by a row of a processor."""
    by_recipe = {row["recipe"]: row for row in rows}
    found = []
    for recipe in (_FRESH, _TUNED):
        if row := by_recipe.get(recipe):
            score, seconds, on_gpu = row["accuracy"]["value"], row["train_seconds"], row["device"] == "cuda"
            name = f"CIFAR-10, {_MODELS[recipe]}: accuracy (trained on {row['device']})"
            found.append(target(name, f">= {_GPU_ACCURACY}", score, met=score >= _GPU_ACCURACY))
            name = "CIFAR-10, the same on one GPU: seconds of training"
            met = on_gpu and seconds <= _GPU_SECONDS
            found.append(target(name, f"<= {_GPU_SECONDS}", seconds if on_gpu else None, met=met))
    if base := by_recipe.get(_BASE):
        score, minutes = base["accuracy"]["value"], base["train_seconds"] / 60
        name = "CIFAR-10 from MobileNetV2's ImageNet weights, 2 CPU cores: accuracy"
        found.append(target(name, f">= {_CPU_ACCURACY}", score, met=score >= _CPU_ACCURACY))
        name = "CIFAR-10 from MobileNetV2's ImageNet weights, 2 CPU cores: minutes of training"
        found.append(target(name, f"<= {_CPU_MINUTES}", round(minutes, 1), met=minutes <= _CPU_MINUTES))
    return found
