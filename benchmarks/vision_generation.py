"""Image generation: digits judged by the digits champion, CIFAR-10, two ways, judged by MobileNetV2.

The bars are of the same held-out pictures: as many real training pictures, and one Gaussian over pixels.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.public_data import CIFAR10, make_project
from benchmarks.quality import headline
from benchmarks.record import describe_hardware, target
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.training.journal import read_journal

_DIGITS, _CIFAR, _PROJECTED = "digits", "cifar10", "cifar10-projected"
_STEPS = {_DIGITS: 4000, _CIFAR: 12_240, _PROJECTED: 5000}
"""Of both networks together, for the table."""
_MODELS = {
    _DIGITS: "DCGAN, conditional",
    _CIFAR: "DCGAN, conditional",
    _PROJECTED: "DCGAN, discriminator behind EfficientNet-Lite0",
}


def run(work: Path) -> list[dict[str, Any]]:
    """Train and evaluate all in a project below `work`; finished steps are found again."""
    project = make_project(work / "generation")
    _cast_digits(project)
    return [_measure(project, name) for name in _STEPS]


def _cast_digits(project: Path) -> None:
    """The champion whose features judge generated digits; from a place where DVC does not keep its data."""
    recipe = project / "recipes" / "encoders" / "digits.yaml"
    recipe.parent.mkdir(exist_ok=True)
    shutil.copy(project / "recipes" / "digits.yaml", recipe)
    pipeline.run(pipeline.open_cast(recipe), SilentReporter())


def _measure(project: Path, name: str) -> dict[str, Any]:
    recipe = f"recipes/image-generation/{name}.yaml"
    cast = pipeline.open_cast(project / recipe, () if name == _DIGITS else CIFAR10)
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    trained = pipeline.run_to(cast, "train", SilentReporter())
    return describe(name, trained.path / "journal.jsonl", evaluated.path / "metrics.json")


def describe(name: str, journal: Path, metrics: Path) -> dict[str, Any]:
    """The row of one training: figures with intervals, the bars, time, and the distance over time."""
    records, told = read_journal(journal), read_json(metrics)
    return {
        "workload": "image-generation",
        "recipe": f"recipes/image-generation/{name}.yaml",
        "data": "digits" if name == _DIGITS else "CIFAR-10, a lossy copy, its own test split",
        "model": _MODELS[name],
        **headline("Frechet distance", told["metrics"]["frechet_distance"]),
        "hardware": describe_hardware(),
        "encoder": told["encoder"],
        "pictures": told["rows"],
        **{
            metric: [round(entry[key], 5) for key in ("value", "low", "high")]
            for metric, entry in told["metrics"].items()
        },
        "baselines": told["baselines"],
        "memorisation": told["memorisation"],
        "minutes": round((records[-1]["time"] - records[0]["time"]) / 60, 1),
        "steps": records[-1]["step"],
        "steps_of_the_recipe": _STEPS[name],
        "curve": [
            {"step": r["step"], "energy_distance": round(r["loss"], 5), "distinct": round(r["accuracy"], 3)}
            for r in records
            if r["kind"] == "validation"
        ],
    }


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """That the distance lies under the bar of the simple baseline, without copies of training pictures."""
    found = []
    for row in rows:
        recipe, distance, bars = Path(row["recipe"]).stem, row["frechet_distance"][0], row["baselines"]
        gaussian = bars["gaussian"]["frechet_distance"]
        name = f"{recipe}, {row['steps']} steps: Frechet distance"
        found.append(target(name, f"below one Gaussian's, {gaussian:.4g}", distance, met=distance < gaussian))
        copied = row["copied_fraction"][0]
        name = f"{recipe}: copies of training pictures"
        found.append(target(name, "at most 0.01", copied, met=copied <= 0.01))
    return found
