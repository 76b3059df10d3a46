"""Word vectors on 2.5 million words: each recipe, and gensim on the same words with the same settings.

GENSIM_PYTHON names the Python of an environment with gensim (LGPL-2.1, no dependency of ours); without it the
rows of the peer are left out, and no target is claimed.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.public_data import make_project
from benchmarks.quality import headline
from benchmarks.record import target
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.core.steps import StepResult
from recaster.data.vector_files import read_vectors
from recaster.evaluation.word_metrics import by_set, coverage, spearman
from recaster.training.journal import read_journal

RECIPES = ("skip-gram", "cbow", "subword")
_PEER = Path(__file__).with_name("gensim_peer.py")
_LEAST_GAP, _LEAST_SPEED = -0.02, 0.5


def run(work: Path) -> list[dict[str, Any]]:
    """A row for each recipe, each followed by gensim's where GENSIM_PYTHON is set."""
    project, rows = make_project(work / "embedding"), []
    for name in RECIPES:
        cast = pipeline.open_cast(project / "recipes" / "word-embedding" / f"{name}.yaml")
        prepared = pipeline.run_to(cast, "prepare", SilentReporter())
        trained = pipeline.run_to(cast, "train", SilentReporter())
        evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
        found = describe(cast, prepared, trained, evaluated)
        known = headline("Spearman", read_json(evaluated.path / "metrics.json")["metrics"]["spearman"])
        told = {"workload": "word-embedding", "data": "13 similarity sets", **known}
        rows.append({"recipe": name, "engine": "recaster", **told, **found})
        if peer := os.environ.get("GENSIM_PYTHON"):
            found = _run_gensim(peer, cast, prepared.path, work / f"gensim-{name}")
            rows.append({"recipe": name, "engine": "gensim", **found})
    return rows


def describe(
    cast: pipeline.Cast, prepared: StepResult, trained: StepResult, evaluated: StepResult
) -> dict[str, Any]:
    """Agreement with people, and words of the corpus a second, of all steps after the first record."""
    told = read_json(evaluated.path / "metrics.json")
    steps = [row for row in read_journal(trained.path / "journal.jsonl") if row["kind"] == "train"]
    section = cast.recipe.train
    row_words = cast.recipe.data.words.row_words if cast.recipe.data.words else 0
    words = (steps[-1]["step"] - steps[0]["step"]) * section.batch_size * row_words
    seconds = steps[-1]["time"] - steps[0]["time"]
    return {
        "words": prepared.facts["known_words"]["train"],
        "vocabulary": prepared.facts["vocabulary"],
        "spearman": _rounded(told["metrics"]["spearman"]),
        "coverage": round(told["metrics"]["coverage"]["value"], 4),
        "sets": {row["set"]: row["spearman"] and round(row["spearman"], 3) for row in told["sets"]},
        "minutes": round(seconds / 60, 1),
        "words_per_second": round(words / seconds),
        "words_per_cpu_second": round(
            section.epochs * prepared.facts["known_words"]["train"] / trained.facts["cpu_seconds"]
        ),
        "ranks": trained.facts["ranks"],
        "threads": trained.facts["threads_per_rank"],
        "peak_memory_mib": trained.facts["peak_memory_mib"],
        "neighbours": told["samples"][-12:],
    }


def _rounded(entry: dict[str, float]) -> list[float]:
    """Value, low, high."""
    return [round(entry[name], 4) for name in ("value", "low", "high")]


def _run_gensim(python: str, cast: pipeline.Cast, prepared: Path, work: Path) -> dict[str, Any]:
    recipe = cast.recipe
    contexts, subwords = recipe.train.contexts, recipe.model.subwords
    settings = {
        "vector_size": recipe.model.width,
        "sg": int(recipe.model.base == "scratch:skip-gram"),
        "window": contexts.window,
        "negative": int(contexts.negatives),
        "sample": contexts.subsample,
        "ns_exponent": contexts.flattening,
        "epochs": recipe.train.epochs,
        "workers": recipe.distributed.ranks * recipe.distributed.threads_per_rank,
    }
    if subwords:
        settings |= {"min_n": subwords.shortest, "max_n": subwords.longest, "bucket": subwords.buckets}
    work.mkdir(parents=True, exist_ok=True)
    (work / "settings.json").write_text(json.dumps(settings))
    command: list[str | Path] = [python, _PEER, prepared, work / "settings.json", work / "vectors.txt"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    words, vectors = read_vectors(work / "vectors.txt")
    predictions, targets, names = _judge(words, vectors, read_json(prepared / "test.pairs.json")["pairs"])
    return {
        "spearman": [round(spearman(predictions, targets), 4)],
        "coverage": round(coverage(predictions, targets), 4),
        "sets": {names[number]: round(value, 3) for number, value, _, _ in by_set(predictions, targets)},
        **{name: round(value) for name, value in told.items()},
        "threads": settings["workers"],
    }


def _judge(
    words: list[str], vectors: np.ndarray, pairs: list[list[Any]]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """As the workload predicts its own: set, cosine, known."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = {word: number for number, word in enumerate(words)}
    names = sorted({pair[0] for pair in pairs})
    rows = []
    for name, first, second, _ in pairs:
        known = first in numbers and second in numbers
        cosine = float(units[numbers[first]] @ units[numbers[second]]) if known else 0.0
        rows.append([names.index(name), cosine, known])
    return np.array(rows, dtype=np.float64), np.array([pair[3] for pair in pairs]), names


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Against gensim, for each recipe that was run by both."""
    entries = []
    for name in RECIPES:
        found = {row["engine"]: row for row in rows if row["recipe"] == name}
        if len(found) < 2:
            continue
        ours, theirs = found["recaster"], found["gensim"]
        gap = round(ours["spearman"][0] - theirs["spearman"][0], 4)
        speed = round(ours["words_per_second"] / theirs["words_per_second"], 2)
        entries += [
            target(f"{name}: mean Spearman less gensim's", "at least -0.02", gap, met=gap >= _LEAST_GAP),
            target(f"{name}: words/s over gensim's", "at least 0.5", speed, met=speed >= _LEAST_SPEED),
        ]
    return entries
