"""Text classification on public data, from open models and from fresh weights: SST-2, TREC-6, CLINC150.

MiniLM-L6 on SST-2 and TREC-6 by every method is `benchmarks/customization.py`; two of its targets stand here.

RECASTER_TEST_DATA=DIR python -m benchmarks.language_quality --only text
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.customization_runs import LOCAL
from benchmarks.public_data import make_project
from benchmarks.quality import headline
from benchmarks.record import RESULTS, target
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.training.journal import read_journal

_CLINC = "data/clinc150/data_full.json#parts="
_ONE_THREAD = "distributed.threads_per_rank=1"
_DATA: dict[str, tuple[str, ...]] = {
    **LOCAL,
    "clinc": (
        f"data.source={_CLINC}train,oos_train",
        f"data.published_splits.validation={_CLINC}val,oos_val",
        f"data.published_splits.test={_CLINC}test,oos_test",
    ),
}
_NAMES = {"sst2": "SST-2, test", "trec": "TREC-6, test", "clinc": "CLINC150, test, in scope"}
_OWN = (
    "model.vectors=models:/english-skip-gram@champion",
    "model.width=100",
    "accept_licences=[research-only, unstated, CC-BY-4.0]",
)
"""Vectors of word-embedding/skip-gram, trained on 2.5 million words, in place of an open model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A recipe of text-classification on the local copy of its data."""

    recipe: str
    overrides: Sequence[str] = ()

    @property
    def data(self) -> str:
        return self.recipe.partition("-")[0]


RUNS = {
    "clinc-minilm": _Run(recipe="clinc-minilm"),
    "trec-cnn": _Run(recipe="trec-cnn"),
    "sst2-cnn": _Run(recipe="sst2-lstm", overrides=("model.base=scratch:kim-cnn", "model.width=300")),
    "sst2-lstm": _Run(recipe="sst2-lstm"),
    "trec-cnn-vectors": _Run(recipe="trec-cnn-vectors"),
    "sst2-cnn-vectors": _Run(recipe="sst2-cnn-vectors"),
    "trec-cnn-own-vectors": _Run(recipe="trec-cnn-vectors", overrides=_OWN),
    "sst2-cnn-own-vectors": _Run(recipe="sst2-cnn-vectors", overrides=_OWN),
}
_WANTED: Sequence[tuple[str, str, float, str]] = (
    ("clinc-minilm", "accuracy", 0.95, "CLINC150: accuracy in scope from MiniLM-L6"),
    ("clinc-minilm", "out_of_scope_auroc", 0.95, "CLINC150: AUROC out of scope from MiniLM-L6"),
    # Within a point of Kim (2014), table 2: CNN-rand 82.7 and 91.2; CNN-non-static, from vectors of a hundred
    # thousand million words, 87.2 and 93.6.
    ("sst2-cnn", "accuracy", 0.817, "SST-2: accuracy of Kim's network from fresh weights (published 82.7)"),
    ("trec-cnn", "accuracy", 0.902, "TREC-6: accuracy of Kim's network from fresh weights (published 91.2)"),
    (
        "sst2-cnn-vectors",
        "accuracy",
        0.862,
        "SST-2: Kim's network from MiniLM-L6's token vectors (published 87.2)",
    ),
    (
        "trec-cnn-vectors",
        "accuracy",
        0.926,
        "TREC-6: Kim's network from MiniLM-L6's token vectors (published 93.6)",
    ),
)


_CUSTOMIZED = ("SST-2, full, test accuracy", "TREC-6, full, test accuracy")


def run(work: Path) -> list[dict[str, Any]]:
    """Train and evaluate each in a project below `work`; finished steps are found again."""
    project = make_project(work / "text")
    return [_measure(project, name, one) for name, one in RUNS.items()]


def _measure(project: Path, name: str, one: _Run) -> dict[str, Any]:
    if one.overrides == _OWN:
        skip_gram = project / "recipes" / "word-embedding" / "skip-gram.yaml"
        pipeline.run(pipeline.open_cast(skip_gram), SilentReporter())
    path = project / "recipes" / "text-classification" / f"{one.recipe}.yaml"
    cast = pipeline.open_cast(path, (*_DATA[one.data], _ONE_THREAD, *one.overrides))
    trained, evaluated = (pipeline.run_to(cast, step, SilentReporter()) for step in ("train", "evaluate"))
    told, journal = read_json(evaluated.path / "metrics.json"), read_journal(trained.path / "journal.jsonl")
    return {
        "workload": "text-classification",
        "run": name,
        "recipe": " ".join((one.recipe, *one.overrides[:1])),
        "data": _NAMES[one.data],
        "overrides": list(one.overrides),
        **headline("accuracy", evaluated.facts["metrics"]["accuracy"]),
        "parameters": trained.facts["parameters"],
        "threads": cast.recipe.distributed.threads_per_rank,
        **{metric: _rounded(entry) for metric, entry in evaluated.facts["metrics"].items()},
        "word_average": {key: _rounded(entry) for key, entry in told["word_average"]["metrics"].items()},
        "slices": [
            {"by": row["by"], "slice": row["slice"], "accuracy": _rounded(row["accuracy"])}
            for row in told["slices"]
            if "accuracy" in row
        ],
        "filled_up": round(trained.facts["filled_up"], 4),
        "minutes": round((journal[-1]["time"] - journal[0]["time"]) / 60, 1),
        "cpu_seconds": trained.facts["cpu_seconds"],
    }


def _rounded(entry: dict[str, float]) -> list[float]:
    """Value, low, high."""
    return [round(entry[name], 4) for name in ("value", "low", "high")]


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that were asked for, of the runs that were measured."""
    found = {row["run"]: row for row in rows}
    customized = json.loads((RESULTS / "customization.json").read_bytes())["targets"]
    shared = [
        {**entry, "name": f"text classification, {entry['name']} from MiniLM-L6 (customization.json)"}
        for entry in customized
        if entry["name"] in _CUSTOMIZED
    ]
    return shared + [
        target(
            f"text classification, {what}",
            f"at least {wanted}",
            found[name][metric][0],
            met=found[name][metric][0] >= wanted,
        )
        for name, metric, wanted, what in _WANTED
        if name in found
    ]
