"""Chat beyond tuning on conversations: preferences (synthetic ones), and the recurrent baseline, on chitchat.

RECASTER_TEST_DATA=DIR python -m benchmarks.language_quality --only dialogue
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.chitchat_pairs import write_pairs
from benchmarks.public_data import make_project
from benchmarks.quality import headline
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.training.journal import read_journal

_PAIRS = "pairs.jsonl.gz"
_RUNS = {"smollm2-preference": (f"data.source={_PAIRS}",), "chitchat-lstm": ()}
_HEADLINES = {"smollm2-preference": "preference_accuracy", "chitchat-lstm": "perplexity"}
_DATA = {
    "smollm2-preference": "chitchat, synthetic pairs",
    "chitchat-lstm": "chitchat, first 256 tokens",
}
_SHOWN = 6


def run(work: Path) -> list[dict[str, Any]]:
    """Train and evaluate each recipe in a project below `work`; finished steps are found again."""
    project = make_project(work / "dialogue")
    write_pairs(project / "data" / "chitchat" / "chitchat.jsonl.gz", project / _PAIRS)
    return [_measure(project, name) for name in _RUNS]


def _measure(project: Path, name: str) -> dict[str, Any]:
    cast = pipeline.open_cast(project / "recipes" / "chat" / f"{name}.yaml", _RUNS[name])
    trained, evaluated = (pipeline.run_to(cast, step, SilentReporter()) for step in ("train", "evaluate"))
    told, journal = read_json(evaluated.path / "metrics.json"), read_journal(trained.path / "journal.jsonl")
    untuned = evaluated.facts.get("untuned") or {}
    return {
        "workload": "chat",
        "recipe": name,
        "data": _DATA[name],
        **headline(_HEADLINES[name].replace("_", " "), evaluated.facts["metrics"][_HEADLINES[name]]),
        "rows": evaluated.facts["rows"],
        "parameters": trained.facts["parameters"],
        "trained_parameters": trained.facts["trained_parameters"],
        "steps": trained.facts["steps"],
        "threads": cast.recipe.distributed.threads_per_rank,
        **{metric: _rounded(entry) for metric, entry in evaluated.facts["metrics"].items()},
        "untuned": {metric: _rounded(entry) for metric, entry in untuned.items()},
        "rewards": told.get("rewards"),
        "reply_quality": told["reply_quality"],
        "replies": told["replies"][:_SHOWN],
        "minutes": round((journal[-1]["time"] - journal[0]["time"]) / 60, 1),
        "cpu_seconds": trained.facts["cpu_seconds"],
    }


def _rounded(entry: dict[str, float]) -> list[float]:
    """Value, low, high."""
    return [round(entry[name], 4) for name in ("value", "low", "high")]


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:  # noqa: ARG001
    """None: no figure was asked for."""
    return []
