"""The runs of the customization benchmark: casts by recipe and overrides, and what is compared after them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.core.steps import StepResult
from recaster.training.journal import read_journal

Measure = Callable[[Path], dict[str, Any]]
_TEXT = "recipes/text-classification"
_LORA = ("customize.method=lora", "train.optimizer.learning_rate=0.001", "train.optimizer.layer_decay=1.0")
_SMALL = "train.optimizer.layer_decay=1.0"


def cast_run(recipe: str, *overrides: str, metric: str = "accuracy") -> Measure:
    """The cast of a recipe with overrides, up to its evaluation."""
    return partial(_cast, recipe, overrides, metric)


def _cast(recipe: str, overrides: tuple[str, ...], metric: str, project: Path) -> dict[str, Any]:
    cast = pipeline.open_cast(project / recipe, overrides)
    started = time.perf_counter()
    trained, evaluated = run_cast(cast)
    wall = time.perf_counter() - started
    result, journal = read_json(trained.path / "result.json"), read_journal(trained.path / "journal.jsonl")
    epochs = max(record["epoch"] for record in journal) + 1
    begun = read_json(trained.path / "plan.json")
    entry = evaluated.facts["metrics"][metric]
    return {
        "recipe": recipe,
        "method": begun["customize"]["method"],
        "overrides": list(overrides),
        "trained_parameters": result["trained_parameters"],
        "parameters": result["parameters"],
        "peak_mib": result["peak_memory_mib"],
        "epochs": epochs,
        "seconds_an_epoch": round(trained.seconds / epochs, 2),
        "cpu_seconds_an_epoch": round(result["cpu_seconds"] / epochs, 2),
        "wall_seconds": round(wall, 1),
        "metric": metric,
        "quality": round(entry["value"], 4),
        "low": round(entry["low"], 4),
        "high": round(entry["high"], 4),
        "artifact": str(trained.path.parent.parent / evaluated.ref),
    }


def run_cast(cast: pipeline.Cast) -> tuple[StepResult, StepResult]:
    """The finished training and evaluation of a cast; found again when they are there."""
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    return pipeline.run_to(cast, "train", SilentReporter()), evaluated


RUNS: dict[str, Measure] = {
    "sst2/full": cast_run(f"{_TEXT}/sst2-minilm.yaml"),
    "sst2/lora": cast_run(f"{_TEXT}/sst2-minilm.yaml", *_LORA),
    "sst2/bitfit": cast_run(
        f"{_TEXT}/sst2-minilm.yaml", "customize.method=bitfit", "train.optimizer.learning_rate=0.003", _SMALL
    ),
    "sst2/probe": cast_run(
        f"{_TEXT}/sst2-minilm.yaml",
        "customize.method=probe",
        "train.optimizer.learning_rate=0.002",
        "train.epochs=20",
        "train.precision=float32",
        "train.checkpoint_every_steps=2000",
        _SMALL,
    ),
    "trec/full": cast_run(f"{_TEXT}/trec-minilm.yaml"),
}
