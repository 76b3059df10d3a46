"""Object detection on public data: `recipes/object-detection/bccd-mobilenet.yaml` on BCCD's test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.public_data import make_project
from benchmarks.quality import headline
from benchmarks.record import describe_hardware, target
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.core.steps import StepResult
from recaster.training.journal import read_journal

_RECIPE = "recipes/object-detection/bccd-mobilenet.yaml"
_WANTED_AP50, _WANTED_MINUTES = 0.88, 40


def run(work: Path) -> list[dict[str, Any]]:
    """Train and evaluate in a project below `work`; finished steps are found again."""
    cast = pipeline.open_cast(make_project(work / "detection") / _RECIPE)
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    return [describe(pipeline.run_to(cast, "train", SilentReporter()), evaluated)]


def describe(trained: StepResult, evaluated: StepResult) -> dict[str, Any]:
    """The row of one training: figures with intervals, time, and the learning curve."""
    journal = read_journal(trained.path / "journal.jsonl")
    told = read_json(evaluated.path / "metrics.json")
    minutes = (journal[-1]["time"] - journal[0]["time"]) / 60
    return {
        "workload": "object-detection",
        "recipe": _RECIPE,
        "data": "BCCD, its own test split",
        "model": "anchor-free detector over MobileNetV2",
        "pictures": evaluated.facts["rows"],
        **headline("AP50", evaluated.facts["metrics"]["ap50"]),
        **{
            name: {key: round(value, 4) for key, value in entry.items()}
            for name, entry in evaluated.facts["metrics"].items()
        },
        "coco": told["coco"],
        "per_class": told["per_class"],
        "errors": told["errors"],
        "minutes": round(minutes, 1),
        "hardware": describe_hardware(),
        "curve": [
            {"epoch": r["epoch"], "loss": round(r["loss"], 4), "recall": round(r["accuracy"], 4)}
            for r in journal
            if r["kind"] == "validation"
        ],
    }


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that were asked for."""
    (row,) = [row for row in rows if row["recipe"] == _RECIPE]
    score, minutes = row["ap50"]["value"], row["minutes"]
    return [
        target("AP50 on BCCD's own test split", f">= {_WANTED_AP50}", score, met=score >= _WANTED_AP50),
        target("minutes of its training", f"<= {_WANTED_MINUTES}", minutes, met=minutes <= _WANTED_MINUTES),
    ]
