"""How near do the predictions of `recaster check` come to the training itself?

For each point a probe predicts the peak memory of a rank and the wall time from the first step to the
result; then the same plan is trained to its end, by ranks in fresh processes that read their own peak and
clock. Memory is the larger of the ranks'. What part of a core a thread got says whether other work ran
beside the one or the other: `time_error_of_cpu` is what is left of the error without that. A point's row
keeps its date, so that some can be measured again.

    make bench-preflight                                      models of the library over random rows
    RECASTER_TEST_DATA=FOLDER make bench-preflight            and recipes over public data
    python -m benchmarks.preflight --only "MiniLM, lora"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.preflight_tasks import write_rows
from benchmarks.public_data import CIFAR10, make_project
from benchmarks.record import RESULTS, target, write_result
from recaster.preflight.launch import probe, started_ranks
from recaster.preflight.limits import read_memory_limits
from recaster.preflight.predict import predict_duration, predict_memory
from recaster.recipe.communication import CommunicationSection
from recaster.recipe.distributed import DistributedSection
from recaster.recipe.training import TrainSection

ROOT = Path(__file__).parent.parent
_MEMORY_WITHIN, _TIME_WITHIN = 0.15, 0.25
_CNN = {"channels": 3, "height": 32, "width": 32, "classes": 10, "dropout": 0.1, "activation": "relu"}
_ENCODER = {"vocabulary": 30522, "classes": 2, "heads": 12, "width": 384, "depth": 6, "dropout": 0.1}
_MLP = {"features": 256, "classes": 10, "dropout": 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One training to predict."""

    name: str
    model: str
    arguments: dict[str, Any]
    rows: int
    epochs: int
    batch: int
    save_every: int
    ranks: int = 1
    train: dict[str, Any] = field(default_factory=dict)

    def plan(self, folder: Path) -> dict[str, Any]:
        optimizer = {"name": "adamw", "learning_rate": 1e-3, **self.train.get("optimizer", {})}
        train = {
            "seed": 7,
            "epochs": self.epochs,
            "batch_size": self.batch,
            "checkpoint_every_steps": self.save_every,
            **self.train,
            "optimizer": optimizer,
        }
        strategy = "single" if self.ranks == 1 else "ddp"
        section = DistributedSection.model_validate({"strategy": strategy, "ranks": self.ranks})
        return {
            "workload_module": "benchmarks.preflight_tasks",
            "prepared": str(folder),
            "model": self.model,
            "arguments": self.arguments,
            "rows": self.rows,
            "train": TrainSection.model_validate(train).model_dump(),
            "distributed": section.model_dump(),
            "communication": CommunicationSection().model_dump(),
        }


def _points() -> list[Point]:
    small, large = {**_CNN, "hidden": 32}, {**_CNN, "hidden": 64}
    short, long = {**_ENCODER, "tokens": 32}, {**_ENCODER, "tokens": 128}
    cnn: dict[str, Any] = {"model": "cnn", "rows": 4096, "save_every": 50}
    encoder: dict[str, Any] = {"model": "encoder", "rows": 512, "epochs": 2, "save_every": 10}
    return [
        Point(name="cnn", arguments=small, batch=64, epochs=4, **cnn),
        Point(name="cnn, large batch", arguments=large, batch=256, epochs=2, **cnn),
        Point(
            name="cnn, four passes",
            arguments=large,
            batch=256,
            epochs=2,
            train={"micro_batch_size": 64},
            **cnn,
        ),
        Point(name="cnn, bf16", arguments=small, batch=64, epochs=4, train={"precision": "bf16"}, **cnn),
        Point(
            name="cnn, sgd and average",
            arguments=small,
            batch=128,
            epochs=4,
            train={"optimizer": {"name": "sgd"}, "ema_decay": 0.99},
            **cnn,
        ),
        Point(name="cnn, two ranks", arguments=small, batch=64, epochs=4, ranks=2, **cnn),
        Point(name="encoder", arguments=short, batch=32, **encoder),
        Point(
            name="encoder, four passes", arguments=short, batch=32, train={"micro_batch_size": 8}, **encoder
        ),
        Point(name="encoder, bf16", arguments=short, batch=32, train={"precision": "bf16"}, **encoder),
        Point(name="encoder, long rows", arguments=long, batch=16, **encoder),
        Point(
            name="encoder, long rows, recomputed",
            arguments=long,
            batch=16,
            train={"activation_checkpointing": True},
            **encoder,
        ),
        Point(
            name="encoder, embedding frozen",
            arguments=short,
            batch=32,
            train={"freeze": ["embed.*"]},
            **encoder,
        ),
        Point(
            name="mlp, 34 M parameters",
            model="mlp",
            arguments={**_MLP, "hidden": 2048, "depth": 2},
            rows=8192,
            epochs=2,
            batch=128,
            save_every=50,
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CastPoint:
    """A recipe's training, with other values, to predict."""

    name: str
    recipe: str
    overrides: tuple[str, ...]

    def plan(self, project: Path) -> dict[str, Any]:
        """Of the finished data steps; what a frozen encoder makes of them included."""
        from recaster import pipeline
        from recaster.core.progress import SilentReporter
        from recaster.pipeline.inputs import training_plan
        from recaster.pipeline.model_verbs import compute_features

        cast, reporter = (
            pipeline.open_cast(project / "recipes" / self.recipe, self.overrides),
            SilentReporter(),
        )
        raw = pipeline.snapshot(cast, reporter)
        checked = pipeline.validate(cast, raw)
        pipeline.fetch_cast_base(cast, reporter)
        prepared = pipeline.prepare(cast, raw, checked)
        return training_plan(cast, prepared, compute_features(cast, prepared, reporter))


_QUESTIONS = (
    "data.source=data/trec/TREC.train.all.txt",
    "data.published_splits.test=data/trec/TREC.test.all.txt",
    "train.optimizer.layer_decay=1.0",
    "train.max_steps=80",
    "train.checkpoint_every_steps=30",
    "distributed.threads_per_rank=1",
)
_PICTURES = (
    "train.max_steps=60",
    "train.checkpoint_every_steps=25",
    "train.batch_size=32",
    "distributed.threads_per_rank=1",
    *CIFAR10,
)


def _cast_points() -> list[CastPoint]:
    def recipe(name: str, path: str, *overrides: str) -> CastPoint:
        return CastPoint(name=name, recipe=path, overrides=overrides)

    text, pictures = "text-classification/trec-minilm.yaml", "image-classification/cifar10-mobilenet.yaml"
    lora = "customize.method=lora"
    return [
        recipe("MiniLM, full, bf16", text, *_QUESTIONS),
        recipe("MiniLM, full, batch 64", text, *_QUESTIONS, "train.precision=float32", "train.batch_size=64"),
        recipe("MiniLM, full, four passes", text, *_QUESTIONS, "train.micro_batch_size=8"),
        recipe("MiniLM, lora", text, *_QUESTIONS, lora),
        recipe("MiniLM, lora, batch 64", text, *_QUESTIONS, lora, "train.batch_size=64"),
        recipe("MiniLM, bitfit", text, *_QUESTIONS, "customize.method=bitfit"),
        recipe("MiniLM, probe", text, *_QUESTIONS, "customize.method=probe", "train.max_steps=3000"),
        recipe("MobileNetV2, full", pictures, *_PICTURES),
        recipe("MobileNetV2, lora", pictures, *_PICTURES, lora),
        recipe("SmolLM2, lora", "chat/smollm2-chitchat.yaml", "train.max_steps=12", "train.batch_size=4"),
        recipe("digits, two ranks", "digits.yaml"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=[], help="names of points; the other rows stay as they are"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".recaster" / "preflight-points", help="kept casts"
    )
    parser.add_argument(
        "--probe-seconds", type=float, default=25.0, help="what `recaster check` has; more on a busy machine"
    )
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        _train_rank(arguments.train)
        return
    points: list[Point | CastPoint] = [*_points()]
    points += _cast_points() if "RECASTER_TEST_DATA" in os.environ else []
    path = RESULTS / "preflight.json"
    rows = {row["point"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    for point in points:
        if not arguments.only or point.name in arguments.only:
            rows[point.name] = _measure(point, arguments.work, arguments.probe_seconds)
            sys.stderr.write(f"{json.dumps(rows[point.name])}\n")
            every: list[Point | CastPoint] = [*_points(), *_cast_points()]
            known = [one.name for one in every]
            _write([rows[name] for name in known if name in rows])


def _measure(point: Point | CastPoint, work: Path, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if isinstance(point, Point):
            plan = point.plan(folder)
            write_rows(folder, plan)
        else:
            plan = point.plan(make_project(work))
        return {
            "point": point.name,
            **_compare(folder, plan, seconds),
            "date": datetime.now(UTC).date().isoformat(),
        }


def _write(rows: list[dict[str, Any]]) -> None:
    targets = [
        target(
            f"{kind}, predicted against measured, largest error of {len(rows)} points",
            f"<= {within:.0%}",
            worst,
            met=worst <= within,
        )
        for kind, within, worst in (
            ("peak memory of a rank", _MEMORY_WITHIN, max(abs(row["memory_error"]) for row in rows)),
            ("wall time of training", _TIME_WITHIN, max(abs(row["time_error"]) for row in rows)),
            (
                "the same, with what other work took of the cores left out",
                _TIME_WITHIN,
                max(abs(row["time_error_of_cpu"]) for row in rows),
            ),
        )
    ]
    targets.append(target("points", ">= 10", len(rows), met=len(rows) >= 10))
    question = "How near do the predictions of `recaster check` come to the training itself?"
    write_result("preflight", question, rows, targets, ["torch", "transformers", "peft"])


def _compare(folder: Path, plan: dict[str, Any], allowed: float) -> dict[str, Any]:
    began, section = time.perf_counter(), plan["distributed"]
    limits = read_memory_limits(section["ranks"])
    found = probe(folder / "probe", plan, limits=limits, seconds=allowed)
    took = time.perf_counter() - began
    if "miniature" not in found[0]:
        raise SystemExit("no training in miniature came to its end: this machine is too busy to measure on")
    memory = predict_memory(found, found[0]["size"]).resident / 2**20
    seconds = predict_duration(found[0], plan["train"]).training
    measured = _train(folder / "run", plan)
    shares = (found[0]["miniature"]["cpu_share"], measured[0]["cpu_share"])
    peak, wall = max(rank["peak_mib"] for rank in measured), measured[0]["seconds"]
    return {
        "steps": found[0]["steps"],
        "predicted_mib": round(memory, 1),
        "measured_mib": round(peak, 1),
        "memory_error": round(memory / peak - 1, 3),
        "predicted_seconds": round(seconds, 2),
        "measured_seconds": round(wall, 2),
        "time_error": round(seconds / wall - 1, 3),
        "time_error_of_cpu": round(seconds * shares[0] / (wall * shares[1]) - 1, 3),
        "probe_cpu_share": round(shares[0], 2),
        "training_cpu_share": round(shares[1], 2),
        "probe_seconds": round(took, 1),
    }


def _train(run_dir: Path, plan: dict[str, Any]) -> list[dict[str, Any]]:
    run_dir.mkdir()
    (run_dir / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-m", "benchmarks.preflight", "--train", str(run_dir)]
    with started_ranks(command, plan["distributed"], log=run_dir / "ranks.log") as ranks:
        codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise subprocess.CalledProcessError(max(codes), command, (run_dir / "ranks.log").read_text())
    return [json.loads(path.read_text()) for path in sorted(run_dir.glob("measured-*.json"))]


def _train_rank(run_dir: Path) -> None:
    """One rank of the training, as `train_rank` has it, with a clock around it."""
    from recaster.training.host_memory import peak_resident
    from recaster.training.rank import Run, join_training

    plan = json.loads((run_dir / "plan.json").read_text())
    with join_training(plan) as (workload, mesh):
        run = Run(run_dir, plan, workload, mesh, plan["train"]["micro_batch_size"])
        began, computing = time.perf_counter(), time.process_time()
        run.train()
        seconds, computed = time.perf_counter() - began, time.process_time() - computing
        threads = plan["distributed"]["threads_per_rank"]
        measured = {
            "seconds": seconds,
            "peak_mib": peak_resident() / 2**20,
            "cpu_share": computed / (seconds * threads),
        }
    (run_dir / f"measured-{mesh.rank}.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
