"""The runs of the customization benchmark: casts by recipe and overrides, and what is compared after them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.record import describe_hardware
from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.core.steps import StepResult
from recaster.training.journal import read_journal

Measure = Callable[[Path], dict[str, Any]]
Figure = tuple[str, str, tuple[str, ...], Callable[..., float], Callable[[float], bool]]
"""What is measured, what was asked for, the runs it needs, the figure of their rows, whether it is met."""
SST2 = "recipes/text-classification/sst2-minilm.yaml"
_LORA = (
    "customize.method=lora",
    "customize.lora={rank: 16, alpha: 32.0, targets: [all-linear]}",
    "train.epochs=5",
    "train.optimizer.learning_rate=0.0007",
    "train.optimizer.layer_decay=1.0",
)
_SMALL = "train.optimizer.layer_decay=1.0"
_ONE_ANSWER = "train.loss.consistency=0"
_BATCH = "train.batch_size=32"
_THREAD = "distributed.threads_per_rank=1"
_PROBE = (
    "customize.method=probe",
    "train.epochs=20",
    "train.precision=float32",
    "train.checkpoint_every_steps=2000",
    _SMALL,
    _ONE_ANSWER,
    _BATCH,
    _THREAD,
)
_SOFT = ("train.optimizer.learning_rate=0.01", _THREAD)
"""Of prompts and prefixes."""


def cast_run(recipe: str, *overrides: str, metric: str = "accuracy") -> Measure:
    """The cast of a recipe with overrides, up to its evaluation."""
    return partial(_cast, recipe, overrides, metric)


def _cast(recipe: str, overrides: tuple[str, ...], metric: str, project: Path) -> dict[str, Any]:
    cast = pipeline.open_cast(project / recipe, overrides)
    trained, evaluated = run_cast(cast)
    result, journal = read_json(trained.path / "result.json"), read_journal(trained.path / "journal.jsonl")
    epochs = max(record["epoch"] for record in journal) + 1
    # From one record to another: starting processes and computing features are not an epoch's.
    first, last = journal[0], journal[-1]
    seconds = (last["time"] - first["time"]) / (last["step"] - first["step"]) * last["step"] / epochs
    begun = read_json(trained.path / "plan.json")
    entry = evaluated.facts["metrics"][metric]
    untuned = evaluated.facts.get("untuned", {}).get(metric)
    return {
        "recipe": recipe,
        "method": begun["customize"]["method"],
        "hardware": describe_hardware(),
        "overrides": list(overrides),
        "trained_parameters": result["trained_parameters"],
        "parameters": result["parameters"],
        "peak_mib": result["peak_memory_mib"],
        "epochs": epochs,
        "seconds_an_epoch": round(seconds, 2),
        "cpu_seconds": result["cpu_seconds"],
        "train_seconds": round(trained.seconds, 1),
        **({"untuned": round(untuned["value"], 4)} if untuned else {}),
        "metric": metric,
        "quality": round(entry["value"], 4),
        "low": round(entry["low"], 4),
        "high": round(entry["high"], 4),
    }


def run_cast(cast: pipeline.Cast) -> tuple[StepResult, StepResult]:
    """The finished training and evaluation of a cast; found again when they are there."""
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    return pipeline.run_to(cast, "train", SilentReporter()), evaluated


def _text(name: str, *overrides: str) -> Measure:
    """The recipe NAME-minilm on the local copy of its data."""
    return cast_run(f"recipes/text-classification/{name}-minilm.yaml", *LOCAL[name], *overrides)


def _chat(*overrides: str) -> Measure:
    """SmolLM2 on the local copy of its conversations."""
    source = "data.source=data/chitchat/chitchat.jsonl.gz"
    return cast_run("recipes/chat/smollm2-chitchat.yaml", source, *overrides, metric="perplexity")


LOCAL: dict[str, tuple[str, ...]] = {
    "sst2": (
        "data.source=data/sst2/stsa.binary.train.txt",
        "data.published_splits.validation=data/sst2/stsa.binary.dev.txt",
        "data.published_splits.test=data/sst2/stsa.binary.test.txt",
    ),
    "trec": (
        "data.source=data/trec/TREC.train.all.txt",
        "data.published_splits.test=data/trec/TREC.test.all.txt",
    ),
}
SST2_FULL = (*LOCAL["sst2"], _THREAD)
"""Of the model that others are held against, and made from."""
RUNS: dict[str, Measure] = {
    "sst2/full": cast_run(SST2, *SST2_FULL),
    "sst2/lora": _text("sst2", *_LORA, _THREAD),
    "sst2/bitfit": _text(
        "sst2",
        "customize.method=bitfit",
        "train.optimizer.learning_rate=0.003",
        _SMALL,
        _ONE_ANSWER,
        _BATCH,
        _THREAD,
    ),
    "sst2/probe": _text("sst2", "train.optimizer.learning_rate=0.002", *_PROBE),
    "sst2/probe-mean": _text("sst2", "train.optimizer.learning_rate=0.01", "model.pooling=mean", *_PROBE),
    "trec/full": _text("trec"),
    "captions/masked": cast_run(
        "recipes/language-modelling/minilm-captions.yaml",
        "data.subset.per_label=6000",  # of 29,000
        "data.subset.seed=1",
        _THREAD,
        metric="token_accuracy",
    ),
    "captions/causal": cast_run("recipes/language-modelling/smollm2-captions.yaml", metric="perplexity"),
    "chitchat/lora": _chat(),
    "chitchat/prompt": _chat("customize={method: prompt}", *_SOFT),
    "chitchat/prefix": _chat("customize={method: prefix}", *_SOFT),
}
