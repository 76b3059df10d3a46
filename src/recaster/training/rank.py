"""One training rank: reads a run directory, writes a run directory, knows torch and nothing else.

plan.json → journal.jsonl, checkpoints/, weights.safetensors, result.json (last)
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch

from recaster.core.collection import collect_as_usual
from recaster.core.files import read_json, write_json
from recaster.core.hashing import hash_file
from recaster.customization.build import build_customized, count_parameters, rests_on_base
from recaster.customization.freezing import freeze_parameters
from recaster.customization.probe import FeatureSet
from recaster.customization.protocol import load_method
from recaster.distributed.buffers import share_buffers
from recaster.distributed.communication.protocol import Communication
from recaster.distributed.heartbeat import note
from recaster.distributed.mesh import Mesh, join_mesh
from recaster.distributed.strategies.build import build_communication, build_strategy, mesh_shape
from recaster.models.losses import LossSum
from recaster.models.open_models import NamedHead
from recaster.training.averaging import WeightAverage
from recaster.training.checkpoint import Saved, load_memory, load_newest_checkpoint, read_weights, whole_state
from recaster.training.consistency import answer_twice, consistent_loss
from recaster.training.disk_need import measure_state, require_room
from recaster.training.feed import Feed
from recaster.training.host_memory import keep_freed_memory, peak_resident, separate_blocks
from recaster.training.journal import JOURNAL, open_journal, read_validations, write_record
from recaster.training.loop import StepReport, TrainState, check_finite, train_steps
from recaster.training.memory_limit import memory_limit
from recaster.training.optimizers import build_optimizers, check_norm_biases, list_layers, unfreezing_steps
from recaster.training.precision import choose_kernels, choose_precision
from recaster.training.prepare_model import prepare_model
from recaster.training.records import StepWindow, measure_validation
from recaster.training.sampler import Sampler
from recaster.training.saver import Saver, save_tensors
from recaster.training.schedule import build_schedule
from recaster.training.selection import find_best, should_stop
from recaster.training.trainable import Sketching, Trainable, TrainingSet, Watched
from recaster.training.turns import averaged_parameters, find_turns
from recaster.training.update import Update

PLAN, RESULT, WEIGHTS, CHECKPOINTS = "plan.json", "result.json", "weights.safetensors", "checkpoints"
SKETCHES = "sketches"
"""Folder with what a `Sketching` workload's model made after each validation, a file a step."""
_PATIENCE = 10


def train_rank(run_dir: Path) -> None:
    """Train as `run_dir/plan.json` says, from its newest undamaged checkpoint.

    Raises:
        DivergedError: see `train_steps`.
        CheckpointError: all checkpoints are damaged.
        RecipeError: the model or the device cannot do what the recipe asks.
        OutOfMemoryError: memory does not hold one sample; before that the process ends, and when it
            is started again takes smaller micro-batches.
    """
    plan: dict[str, Any] = read_json(run_dir / PLAN)
    with (
        join_training(plan) as (workload, mesh),
        memory_limit(run_dir, plan["train"], data_ranks=mesh.data_ranks) as micro_batch_size,
    ):
        Run(run_dir, plan, workload, mesh, micro_batch_size).train()


@contextmanager
def join_training(plan: dict[str, Any]) -> Iterator[tuple[Trainable, Mesh]]:
    """Set this process up as the plan says, and join the ranks that the launcher started.

    Raises:
        RecipeError: the device does not have the plan's precision.
    """
    keep_freed_memory()
    workload: Trainable = importlib.import_module(plan["workload_module"]).WORKLOAD
    section = plan["distributed"]
    choose_kernels(deterministic=plan["train"]["deterministic"])
    with join_mesh(
        device=section["device"],
        threads=section["threads_per_rank"],
        shape=mesh_shape(section),
        # The watchdog names a hung rank long before; what is slow, such as a large save, must not end a run.
        timeout=timedelta(seconds=_PATIENCE * section["hang_timeout_seconds"]),
    ) as mesh:
        choose_precision(plan["train"]["precision"], mesh, warn=_warn)
        yield workload, mesh


class Run:
    """One rank's part of a training run: the state that the steps share, and what happens between them."""

    def __init__(
        self,
        run_dir: Path,
        plan: dict[str, Any],
        workload: Trainable,
        mesh: Mesh,
        micro_batch_size: int | None,
    ) -> None:
        self.run_dir, self.plan, self.workload, self.mesh = run_dir, plan, workload, mesh
        train = plan["train"]
        self.train_section: dict[str, Any] = train
        self.micro_batch_size = micro_batch_size
        self.method = load_method(plan)
        self.data, self.validation = (self._open_split(name) for name in ("train", "validation"))
        self.sampler = Sampler(
            samples=len(self.data),
            batch_size=train["batch_size"],
            seed=train["seed"],
            lengths=self.data.lengths,
        )
        self.steps = self.sampler.steps_per_epoch * train["epochs"]
        if train["max_steps"]:
            self.steps = min(self.steps, train["max_steps"])
        self._build_model()
        self.feed = Feed(
            self.data,
            self.sampler,
            self.strategy,
            mesh,
            micro_batch_size=micro_batch_size,
            seed=train["seed"],
            steps=self.steps,
        )
        self.saver = Saver(run_dir / CHECKPOINTS, keep=train["keep_checkpoints"], timeout=mesh.timeout)
        self.validations: list[dict[str, Any]] = []

    def _open_split(self, split: str) -> TrainingSet:
        features = self.method.inputs(self.plan)
        if features:
            return FeatureSet(features, split)
        return self.workload.open_split(Path(self.plan["prepared"]), split, self.plan)

    def _build_model(self) -> None:
        train = self.train_section
        model = build_customized(self.workload, self.plan, say=_say if self.mesh.rank == 0 else None)
        layers = list_layers(model)
        prepare_model(model, train)
        check_norm_biases(model, train["optimizer"])  # what is frozen is known now
        if train["loss"].get("consistency"):
            answer_twice(model)
        self.state_size = measure_state(model, self.plan)
        section = self.plan["distributed"]
        self.strategy = build_strategy(
            model,
            section,
            mesh=self.mesh,
            precision=train["precision"],
            batch_size=train["batch_size"],
            micro_batch_size=self.micro_batch_size,
            communication=self._build_communication() if section["strategy"] == "ddp" else None,
        )
        module = self.strategy.module
        self.turns = find_turns(module)
        self.optimizers = build_optimizers(
            module,
            train["optimizer"],
            layers=layers,
            frozen_steps=self._frozen_steps(model, layers),
            part_rates={"discriminator": train["adversary"]["learning_rate"]} if self.turns else None,
        )
        self.update = Update(
            module,
            self.optimizers,
            self.strategy.communication,
            self.mesh,
            precision=train["precision"],
            max_gradient_norm=train["max_gradient_norm"],
        )
        decay = train["ema_decay"]
        self.average = WeightAverage(module, decay) if decay else None

    def _frozen_steps(self, model: torch.nn.Module, layers: list[str]) -> dict[str, int]:
        customize = self.plan.get("customize", {})
        if customize.get("method") != "full" or not (apart := customize["full"]["unfreeze_every_epochs"]):
            return {}
        head = model.head_names() if isinstance(model, NamedHead) else layers[-1:]
        return unfreezing_steps(layers, head, steps_apart=apart * self.sampler.steps_per_epoch)

    def _build_communication(self) -> Communication:
        return build_communication(
            self.plan["communication"],
            mesh=self.mesh,
            bucket_mib=self.plan["distributed"]["bucket_mib"],
            last_step=self.steps,
            folder=self.run_dir,
        )

    def train(self) -> None:
        """Resume, train to the end, write the result."""
        saved = Saved(module=self.strategy.module, optimizers=self.optimizers, extra=self._extra_state())
        folder = self.run_dir / CHECKPOINTS
        if self.mesh.rank == 0:
            require_room(folder, self.state_size, keep=self.train_section["keep_checkpoints"])
        step = load_newest_checkpoint(folder, saved, on_damage=_warn)
        self._recall(step)
        state = TrainState(
            strategy=self.strategy, update=self.update, average=self.average, step=step, turns=self.turns
        )
        # Read before the first rank cuts it: up to `step` both texts say the same.
        self.validations = read_validations(self.run_dir / JOURNAL, up_to=step)
        torch.distributed.barrier()
        journal = open_journal(self.run_dir / JOURNAL, resume_step=step) if self.mesh.rank == 0 else None
        with closing(self.saver):
            if not self._is_over(step):
                self._run_steps(state, saved, journal)
        if journal:
            journal.close()
            self._write_result(steps=state.step, resumed_at=step)

    def training_loss(self) -> LossSum:
        """What the steps make small."""
        section = self.train_section["loss"]
        own = self.method.build_loss(self.workload.build_loss(section, training=True), self.plan)
        weight = section.get("consistency", 0.0)
        return consistent_loss(own, weight) if weight else own

    def _extra_state(self) -> dict[str, Any]:
        averages = self.average.tensors if self.average else {}
        return {
            **{f"average.{name}": value for name, value in averages.items()},
            **{f"scaler.{name}": value for name, value in self.update.scaler.items()},
        }

    def _recall(self, step: int) -> None:
        """Give the communication scheme back what it kept at `step`."""
        memory = load_memory(self.run_dir / CHECKPOINTS, step) if step else {}
        if memory is None and self.mesh.rank == 0 and self.strategy.communication.memory():
            _warn("another number of ranks saved this checkpoint: what its communication kept is left out")
        self.strategy.communication.load_memory(memory or {})

    def _run_steps(self, state: TrainState, saved: Saved, journal: IO[str] | None) -> None:
        window = StepWindow(self.mesh, steps=self.steps, first=state.step)
        train = self.train_section
        share = build_schedule(
            train["schedule"], steps=self.steps, steps_per_epoch=self.sampler.steps_per_epoch
        )
        peak = train["optimizer"]["learning_rate"]
        loop = train_steps(
            state,
            feed=self.feed,
            loss_sum=self.training_loss(),
            rate_at=lambda step: peak * share(step),
            mesh=self.mesh,
            seed=train["seed"],
        )
        every, save_every = train["record_every_steps"], train["checkpoint_every_steps"]
        note(step=state.step, phase="compile" if train["compile"] else "step")
        collect_as_usual()
        with closing(loop) as reports:
            for report in reports:
                window.add(report)
                over = report.step == self.steps
                if over or report.step % every == 0:
                    check_finite(state, feed=self.feed, mesh=self.mesh)
                    record = window.close(report)
                    if journal:
                        write_record(journal, record)
                if over:
                    self.strategy.communication.close()
                if (report.ends_epoch or over) and self._end_epoch(report, journal) and not over:
                    self.strategy.communication.close()
                    over = True
                if over or report.step % save_every == 0 or self._is_new_best(report):
                    check_finite(state, feed=self.feed, mesh=self.mesh)
                    self._save(saved, report.step)
                if over:
                    return

    def _end_epoch(self, report: StepReport, journal: IO[str] | None) -> bool:
        """Validate when it is due; return whether training is over."""
        train, last = self.train_section, report.step == self.steps
        if last or (report.epoch + 1) % train["validate_every_epochs"] == 0:
            note(step=report.step, phase="validate")
            share_buffers(self.strategy.module, self.mesh)
            with separate_blocks(), self.average.in_place() if self.average else nullcontext():
                measured = self.validate(self.validation, micro_batch_size=self.micro_batch_size)
                self._sketch(report.step)
            self.strategy.module.train()
            record = {"kind": "validation", "step": report.step, "epoch": report.epoch, **measured}
            self.validations.append(record)
            if journal:
                write_record(journal, record)
            self._check_health()
        return self._is_over(report.step)

    def _sketch(self, step: int) -> None:
        if self.mesh.rank == 0 and isinstance(self.workload, Sketching):
            (self.run_dir / SKETCHES).mkdir(exist_ok=True)
            drawn = self.workload.sketch(self.strategy.module, self.plan)
            save_tensors({"drawn": drawn}, self.run_dir / SKETCHES / f"{step:08d}.safetensors")

    def _check_health(self) -> None:
        if isinstance(self.workload, Watched):
            self.workload.check_health(self.validations, self.train_section)

    def validate(self, data: TrainingSet, *, micro_batch_size: int | None) -> dict[str, float]:
        """See `measure_validation`; the model is left in evaluation mode."""
        return measure_validation(
            self.strategy,
            data,
            mesh=self.mesh,
            micro_batch_size=micro_batch_size,
            batch_size=self.train_section["batch_size"],
            loss_sum=self.workload.build_loss(self.train_section["loss"], training=False),
            correct=self.workload.correct,
        )

    def _is_over(self, step: int) -> bool:
        if step == self.steps:
            return True
        rule, now = self.train_section["early_stopping"], self.validations
        return bool(rule and now and now[-1]["step"] == step and should_stop(now, rule))

    def _is_new_best(self, report: StepReport) -> bool:
        return bool(report.ends_epoch and self.train_section["keep_best"] and self._best() == report.step)

    def _best(self) -> int:
        """The step whose weights come out, as far as is known; 0 when only the last one's do."""
        metric = self.train_section["keep_best"]
        return int(find_best(self.validations, metric)["step"]) if metric and self.validations else 0

    def _save(self, saved: Saved, step: int) -> None:
        note(step=step, phase="save")
        share_buffers(self.strategy.module, self.mesh)
        best = {self._best()}
        self.saver.save(saved, step=step, memory=self.strategy.communication.memory(), also_keep=lambda: best)

    def _write_result(self, *, steps: int, resumed_at: int) -> None:
        weights = self.run_dir / WEIGHTS
        # Both the last step and the best one were saved: their checkpoints have all ranks' parts.
        step = self._best() or steps
        model = build_customized(self.workload, self.plan)
        freeze_parameters(model, self.train_section["freeze"])
        every, changed = count_parameters(model)
        averages = list(averaged_parameters(model)) if self.average else []
        trained = read_weights(self.run_dir / CHECKPOINTS, step=step, model=model, averages=averages)
        if not rests_on_base(self.plan):  # else the export takes what is missing from there
            trained = whole_state(model)
        save_tensors(trained, weights)
        result = {
            "steps": steps,
            "weights_of_step": step,
            "resumed_at": resumed_at,
            "weights_sha256": hash_file(weights),
            "filled_up": self.sampler.filled_up,
            "parameters": every,
            "trained_parameters": changed,
            "cpu_seconds": round(time.process_time(), 2),  # of this process: since the last start
            "peak_memory_mib": _peak_memory_mib(self.mesh),
            "ranks": self.mesh.world,
            "device": self.mesh.device.type,
            "torch": torch.__version__,
            "threads_per_rank": torch.get_num_threads(),
        }
        write_json(self.run_dir / RESULT, result)


def _peak_memory_mib(mesh: Mesh) -> float:
    """The most memory this rank held since its start: on its GPU, else of its process."""
    if mesh.device.type == "cuda":
        return round(torch.cuda.max_memory_reserved() / 2**20, 1)
    return round(peak_resident() / 2**20, 1)


def _say(message: str) -> None:
    sys.stderr.write(f"model: {message}\n")


def _warn(message: str) -> None:
    sys.stderr.write(f"warning: {message}\n")
