"""Dependency parsing on public data: the recipes of UD English-EWT, on its own test split.

RECASTER_TEST_DATA=DIR python -m benchmarks.language_quality --only parsing
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.public_data import make_project
from benchmarks.quality import headline
from benchmarks.record import target
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.tree_shards import read_split_sentences
from recaster.models.sentence_parser import strip_annotation
from recaster.training.journal import read_journal
from recaster.workloads.dependency_parsing import open_parser

WANTED = {"ewt-bilstm": 0.82, "ewt-minilm": 0.87}
"""Labelled attachment on the test split's own words."""


def run(work: Path) -> list[dict[str, Any]]:
    """Train and evaluate each recipe in a project below `work`; finished steps are found again."""
    project = make_project(work / "parsing")
    return [_measure(project, name) for name in WANTED]


def _measure(project: Path, name: str) -> dict[str, Any]:
    path = project / "recipes" / "dependency-parsing" / f"{name}.yaml"
    cast = pipeline.open_cast(path, ("distributed.threads_per_rank=1",))
    trained = pipeline.run_to(cast, "train", SilentReporter())
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    artifact = pipeline.run_to(cast, "export", SilentReporter()).path
    prepared = pipeline.run_to(cast, "prepare", SilentReporter()).path
    told, journal = read_json(evaluated.path / "metrics.json"), read_journal(trained.path / "journal.jsonl")
    steps = [record for record in journal if record["kind"] == "train"]
    return {
        "workload": "dependency-parsing",
        "recipe": name,
        "threads": cast.recipe.distributed.threads_per_rank,
        "data": "UD English-EWT 2.15, test, gold words",
        **headline("LAS", evaluated.facts["metrics"]["las"]),
        "sentences": evaluated.facts["rows"],
        **{metric: _rounded(entry) for metric, entry in evaluated.facts["metrics"].items()},
        "raw_text": {kind: round(score, 4) for kind, score in told["raw_text"].items()},
        "by_relation": told["by_relation"],
        "by_distance": told["by_distance"],
        "by_length": told["by_length"],
        "parsed_sentences_per_second": _time_parsing(artifact, prepared),
        "trained_sentences_per_second": round(
            sum(record["samples_per_second"] for record in steps) / len(steps), 1
        ),
        "minutes": round((journal[-1]["time"] - journal[0]["time"]) / 60, 1),
        "curve": [
            {"epoch": r["epoch"], "loss": round(r["loss"], 4), "attached": round(r["accuracy"], 4)}
            for r in journal
            if r["kind"] == "validation"
        ],
    }


def _time_parsing(artifact: Path, prepared: Path) -> float:
    """Of gold words, all of the test split, decoding included."""
    parser = open_parser(artifact)
    sentences = [strip_annotation(one) for one in read_split_sentences(prepared, "test")]
    started = time.perf_counter()
    parser.parse_sentences(sentences)
    return round(len(sentences) / (time.perf_counter() - started), 1)


def _rounded(entry: dict[str, float]) -> list[float]:
    """Value, low, high."""
    return [round(entry[name], 4) for name in ("value", "low", "high")]


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures that were asked for, of the recipes that were measured."""
    found = {row["recipe"]: row for row in rows}
    return [
        target(
            f"parsing, UD English-EWT test, gold words: LAS of {name}",
            f"at least {wanted}",
            found[name]["las"][0],
            met=found[name]["las"][0] >= wanted,
        )
        for name, wanted in WANTED.items()
        if name in found
    ]
