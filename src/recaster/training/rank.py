"""One training rank: reads a run directory, writes a run directory, knows torch and nothing else.

plan.json → journal.jsonl, checkpoints/, weights.safetensors, result.json (last)
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import IO, Any

import torch

from recaster.core.files import read_json, write_json
from recaster.core.hashing import hash_file
from recaster.core.seeds import derive_seed
from recaster.distributed.mesh import Mesh, join_mesh, sum_over_ranks
from recaster.distributed.strategies.build import build_strategy, mesh_shape
from recaster.training.checkpoint import load_newest_checkpoint, read_weights, save_checkpoint, save_tensors
from recaster.training.journal import JOURNAL, open_journal, write_record
from recaster.training.loop import LoopOptions, StepReport, TrainState, train_steps
from recaster.training.micro_batches import cut_batch
from recaster.training.optimizer import build_optimizer
from recaster.training.sampler import Sampler
from recaster.training.trainable import Trainable, TrainingSet

PLAN, RESULT, WEIGHTS, CHECKPOINTS = "plan.json", "result.json", "weights.safetensors", "checkpoints"
_VALIDATION_ROWS = 512


def train_rank(run_dir: Path) -> None:
    """Train as `run_dir/plan.json` says, from its newest undamaged checkpoint.

    Raises:
        DivergedError: see `train_steps`.
        CheckpointError: all checkpoints are damaged.
    """
    plan: dict[str, Any] = read_json(run_dir / PLAN)
    workload: Trainable = importlib.import_module(plan["workload_module"]).WORKLOAD
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    section = plan["distributed"]
    with join_mesh(
        device=section["device"], threads=section["threads_per_rank"], shape=mesh_shape(section)
    ) as mesh:
        _Run(run_dir, plan, workload, mesh).train()


class _Run:
    """The state that the steps between updates share."""

    def __init__(self, run_dir: Path, plan: dict[str, Any], workload: Trainable, mesh: Mesh) -> None:
        self.run_dir, self.plan, self.workload, self.mesh = run_dir, plan, workload, mesh
        train, prepared = plan["train"], Path(plan["prepared"])
        self.data = workload.open_split(prepared, "train", plan)
        self.validation = workload.open_split(prepared, "validation", plan)
        self.sampler = Sampler(samples=len(self.data), batch_size=train["batch_size"], seed=train["seed"])
        self.steps = self.sampler.steps_per_epoch * train["epochs"]
        torch.manual_seed(derive_seed(train["seed"], "weights"))
        self.strategy = build_strategy(
            workload.build_model(plan),
            plan["distributed"],
            mesh=mesh,
            precision=train["precision"],
            batch_size=train["batch_size"],
            micro_batch_size=train["micro_batch_size"],
        )
        self.optimizer = build_optimizer(self.strategy.module, train["optimizer"])
        self.records: list[StepReport] = []

    def train(self) -> None:
        """Resume, train to the end, write the result."""
        step = load_newest_checkpoint(
            self.run_dir / CHECKPOINTS,
            model=self.strategy.module,
            optimizer=self.optimizer,
            on_damage=_warn,
        )
        state = TrainState(strategy=self.strategy, optimizer=self.optimizer, step=step)
        journal = open_journal(self.run_dir / JOURNAL, resume_step=step) if self.mesh.rank == 0 else None
        self._run_steps(state, journal)
        if journal:
            journal.close()
            self._write_result(resumed_at=step)

    def _run_steps(self, state: TrainState, journal: IO[str] | None) -> None:
        started, first = time.perf_counter(), state.step
        train = self.plan["train"]
        loop = train_steps(
            state,
            data=self.data,
            sampler=self.sampler,
            workload=self.workload,
            mesh=self.mesh,
            options=self._options(),
        )
        for report in loop:
            self.records.append(report)
            last = report.step == self.steps
            if last or report.step % train["record_every_steps"] == 0:
                self._record(report, journal, (time.perf_counter() - started) / (report.step - first))
            if report.ends_epoch:
                self._validate(report, journal)
            if last or report.step % train["checkpoint_every_steps"] == 0:
                save_checkpoint(
                    self.run_dir / CHECKPOINTS,
                    step=report.step,
                    model=self.strategy.module,
                    optimizer=self.optimizer,
                    keep=train["keep_checkpoints"],
                )

    def _options(self) -> LoopOptions:
        train = self.plan["train"]
        return LoopOptions(
            steps=self.steps,
            learning_rate=train["optimizer"]["learning_rate"],
            schedule=train["schedule"]["name"],
            warmup_fraction=train["schedule"]["warmup_fraction"],
            label_smoothing=train["label_smoothing"],
            max_gradient_norm=train["max_gradient_norm"],
            micro_batch_size=train["micro_batch_size"],
            seed=train["seed"],
        )

    def _record(self, report: StepReport, journal: IO[str] | None, step_seconds: float) -> None:
        local = [
            sum(item.loss_sum for item in self.records),
            float(sum(item.targets for item in self.records)),
        ]
        loss, targets = sum_over_ranks(local, self.mesh)
        steps = len(self.records)
        self.records.clear()
        if journal:
            record = {
                "kind": "train",
                "steps": self.steps,
                "step": report.step,
                "epoch": report.epoch,
                "loss": loss / targets,
                "learning_rate": report.learning_rate,
                "gradient_norm": report.gradient_norm,
                "samples_per_second": targets / steps / step_seconds,
                "seconds_left": (self.steps - report.step) * step_seconds,
                "time": time.time(),
            }
            write_record(journal, record)

    def _validate(self, report: StepReport, journal: IO[str] | None) -> None:
        loss, correct, targets = sum_over_ranks(self._score(self.validation), self.mesh)
        self.strategy.module.train()
        if journal:
            record = {
                "kind": "validation",
                "step": report.step,
                "epoch": report.epoch,
                "loss": loss / targets,
                "accuracy": correct / targets,
                "time": time.time(),
            }
            write_record(journal, record)

    def _score(self, data: TrainingSet) -> list[float]:
        """Loss sum, hits and count over this rank's share of `data`; 0 where another rank reports it."""
        import numpy as np

        self.strategy.module.eval()
        loss, correct, count = 0.0, 0, 0
        passes, rows = self.strategy.passes or 1, self.strategy.rows_per_pass or _VALIDATION_ROWS
        together = passes * rows * self.mesh.data_ranks
        for start in range(0, len(data), together):
            pieces = cut_batch(
                np.arange(start, min(start + together, len(data))),
                data=data,
                strategy=self.strategy,
                mesh=self.mesh,
                micro_batch_size=rows,
                seed=None,
            )
            for logits, piece in zip(self.strategy.predict(pieces), pieces, strict=self.mesh.speaks):
                if self.mesh.speaks:
                    targets = piece.targets[: piece.counted].to(self.mesh.device)
                    loss += float(self.workload.loss_sum(logits, targets, label_smoothing=0.0))
                    correct += self.workload.correct(logits, targets)
                    count += piece.counted
        return [loss, float(correct), float(count)]

    def _write_result(self, *, resumed_at: int) -> None:
        weights = self.run_dir / WEIGHTS
        # The last step was saved: its checkpoint has all ranks' parts.
        model = self.workload.build_model(self.plan)
        save_tensors(read_weights(self.run_dir / CHECKPOINTS, step=self.steps, model=model), weights)
        result = {
            "steps": self.steps,
            "resumed_at": resumed_at,
            "weights_sha256": hash_file(weights),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "ranks": self.mesh.world,
            "device": self.mesh.device.type,
            "torch": torch.__version__,
            "threads_per_rank": torch.get_num_threads(),
        }
        write_json(self.run_dir / RESULT, result)


def _warn(message: str) -> None:
    sys.stderr.write(f"warning: {message}\n")
