"""What does the input path of texts cost, and how much of a batch only fills it up?

For each recipe the whole of `prepare` (grouping, splitting, tokenizing, writing) and the making of batches
from the prepared shards, in tokens a second, against the tokens a second that the model's own step takes
(forward, backward, AdamW): one thread each, in turn. `prepare` counts once though a token is trained on in
every epoch; not where it trains a model of its own, the segmenter of dependency-parsing.

    RECASTER_TEST_DATA=DIR python -m benchmarks.language [--only sst2-minilm …] [--work DIR]

With --only the other recipes' rows stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.customization_runs import LOCAL
from benchmarks.public_data import make_project
from benchmarks.record import RESULTS, describe_hardware, target, write_result
from recaster import pipeline
from recaster.core.progress import SilentReporter
from recaster.customization.build import build_customized
from recaster.pipeline.base_verbs import find_base
from recaster.pipeline.inputs import training_plan
from recaster.training.sampler import Sampler, count_elements
from recaster.training.trainable import TrainingSet

RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "sst2-minilm": ("text-classification", LOCAL["sst2"]),
    "trec-cnn": ("text-classification", LOCAL["trec"]),
    "multi30k-transformer": ("translation", ()),
    "multi30k-rnn": ("translation", ()),
    "ewt-minilm": ("dependency-parsing", ()),
    "ewt-bilstm": ("dependency-parsing", ()),
    "smollm2-chitchat": ("chat", ("data.source=data/chitchat/chitchat.jsonl.gz",)),
}
_STEPS = 7
"""Of which the first is left out."""
_TRAINS_IN_PREPARE = ("dependency-parsing",)
_LEAST_RATIO, _MOST_FILLED = 20, 0.10


def main() -> int:
    asked = _parse_arguments()
    if "RECASTER_TEST_DATA" not in os.environ:
        sys.stderr.write("SKIPPED: RECASTER_TEST_DATA names no folder of public data sets\n")
        return 1
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    project, path = make_project(asked.work / "language"), RESULTS / "language.json"
    rows = {row["recipe"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    for name in asked.only:
        workload, overrides = RECIPES[name]
        cast = pipeline.open_cast(project / "recipes" / workload / f"{name}.yaml", overrides)
        found = _measure(cast)
        rows[name] = {"recipe": name, "workload": workload, **found, "hardware": describe_hardware()}
        sys.stderr.write(f"{rows[name]}\n")
        _write([rows[one] for one in RECIPES if one in rows])
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--work", type=Path, default=Path("/tmp/recaster-language"))
    return parser.parse_args()


def _measure(cast: pipeline.Cast) -> dict[str, Any]:
    silent, section = SilentReporter(), cast.recipe.train
    raw, checked, prepared = (
        pipeline.run_to(cast, verb, silent) for verb in ("snapshot", "validate", "prepare")
    )
    plan = training_plan(cast, prepared)
    data: TrainingSet = cast.workload.open_split(prepared.path, "train", plan)
    assert data.lengths is not None
    total = sum(_count_tokens(cast, prepared.path, split, plan) for split in ("train", "validation"))
    alone = cast.recipe.workload in _TRAINS_IN_PREPARE
    seconds = None if alone else _time_prepare(cast, raw.path, checked.path)
    sampler = Sampler(
        samples=len(data), batch_size=section.batch_size, seed=section.seed, lengths=data.lengths
    )
    batch, step = _time_steps(cast, plan, data, sampler)
    made = total / seconds if seconds else float("inf")
    return {
        "tokens": total,
        "prepare_tokens_per_second": round(made) if seconds else None,
        "batch_tokens_per_second": round(batch),
        "step_tokens_per_second": round(step, 1),
        "ratio": round(1 / (1 / made + 1 / batch) / step, 1),
        "filled_up": round(sampler.filled_up, 4),
        "filled_up_in_shuffled_order": round(_shuffled(data.lengths, section.batch_size), 4),
    }


def _count_tokens(cast: pipeline.Cast, prepared: Path, split: str, plan: dict[str, Any]) -> int:
    lengths = cast.workload.open_split(prepared, split, plan).lengths
    assert lengths is not None
    return int(lengths.sum())


def _time_prepare(cast: pipeline.Cast, raw: Path, checked: Path) -> float:
    """Of the second time: the first one imports what it needs."""
    for _ in range(2):
        seconds = _prepare_once(cast, raw, checked)
    return seconds


def _prepare_once(cast: pipeline.Cast, raw: Path, checked: Path) -> float:
    base = find_base(cast)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        cast.workload.prepare(
            cast.recipe, raw, np.load(checked / "accepted.npy"), base.path if base else None, Path(folder)
        )
        return time.perf_counter() - started


def _time_steps(
    cast: pipeline.Cast, plan: dict[str, Any], data: TrainingSet, sampler: Sampler
) -> tuple[float, float]:
    """Tokens a second of making batches, and of the model's steps on them; medians."""
    model = build_customized(cast.workload, plan, say=None).train()
    loss_of = cast.workload.build_loss(plan["train"]["loss"], training=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    order, micro = sampler.order(0), plan["train"]["micro_batch_size"] or plan["train"]["batch_size"]
    inputs, steps = [], []
    for number in np.linspace(0, sampler.steps_per_epoch - 2, _STEPS).astype(int).tolist():
        rows = sampler.rows(order, number)[:micro]
        tokens = int(data.lengths[rows].sum())  # type: ignore[index]
        started = time.perf_counter()
        sources, targets = data.batch(rows, seed=number)
        read = time.perf_counter()
        loss_of(model(sources), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        inputs.append(tokens / (read - started))
        steps.append(tokens / (time.perf_counter() - read))
    return statistics.median(inputs[1:]), statistics.median(steps[1:])


def _shuffled(lengths: np.ndarray[Any, Any], batch: int) -> float:
    """What would fill batches up without regard to length."""
    order = np.random.default_rng(0).permutation(len(lengths))
    padded = sum(count_elements(lengths[order[at : at + batch]]) for at in range(0, len(order), batch))
    return 1.0 - float(lengths.sum()) / padded


def _write(rows: list[dict[str, Any]]) -> None:
    targets = [
        entry
        for row in rows
        for entry in (
            target(
                f"{row['recipe']}: input path over the step",
                f"at least {_LEAST_RATIO}",
                row["ratio"],
                met=row["ratio"] >= _LEAST_RATIO,
            ),
            target(
                f"{row['recipe']}: share that only fills up",
                f"below {_MOST_FILLED:.0%}",
                row["filled_up"],
                met=row["filled_up"] < _MOST_FILLED,
            ),
        )
    ]
    write_result(
        "language",
        "What does the input path of texts cost?",
        rows,
        targets,
        ["torch", "tokenizers", "transformers"],
    )


if __name__ == "__main__":
    sys.exit(main())
