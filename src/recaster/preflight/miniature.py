"""A training in miniature: the plan's own model, strategy, update and saver, over a few of its rows.

rung       a few steps with so many rows a pass: what memory and time grow by
miniature  steps ─ validation ─ save beside steps ─ validation ─ save ─ result: two short epochs of all that a
           training does
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from recaster.distributed.mesh import Mesh, sum_over_ranks
from recaster.preflight.excerpt import (
    EpochWork,
    cut_out,
    measure_epoch,
    measure_passes,
    pick_heaviest,
    pick_longest,
    pick_steps,
)
from recaster.preflight.process_memory import peak_address_space, reset_peak
from recaster.training.feed import Feed
from recaster.training.host_memory import give_back_memory, peak_resident, separate_blocks
from recaster.training.loop import TrainState, train_steps
from recaster.training.micro_batches import cut_rows
from recaster.training.rank import Run
from recaster.training.records import validation_rows
from recaster.training.sampler import Sampler
from recaster.training.trainable import TrainingSet

EPOCHS = 2
"""Of a miniature: the second finds memory as the first has left it."""
_RUNG_STEPS, _RUNG_SECONDS = 3, 2.0
"""A rung ends after so many steps, or after so long a time with two."""
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most memory that this rank took, bytes."""

    resident: int
    """In RAM."""
    address_space: int
    device: int
    """Allocated on the GPU; 0 on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """Steps of one pass."""

    rows: int
    """Of a pass."""
    seconds: float
    """Of one step."""
    peak: Peak
    """Of the steps."""
    validation_rows: int
    """That were validated together."""
    validation_peak: Peak
    """Of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much of a training a miniature is."""

    steps: int
    """Of two epochs together; a checkpoint is written after each."""
    record_every: int
    """Steps between two records of the journal, from which the times are read."""
    batch_size: int
    """Rows of a step over all ranks."""
    micro_batch_size: int | None
    """Rows of a pass on one rank; None: all of a step."""
    step_guess: float
    """Seconds of a step, as the rungs have it."""
    validation_rows: int


class MiniatureRun(Run):
    """A rank's part of a training that is begun over and over, and never carried out."""

    def _frozen_steps(self, model: torch.nn.Module, layers: list[str]) -> dict[str, int]:  # noqa: ARG002
        """None: a miniature is of the time when all layers have joined, which takes most."""
        return {}

    def _check_health(self) -> None:
        """Not of so short a training."""

    @cached_property
    def work(self) -> EpochWork:
        """What the whole training's steps are made of."""
        return self.measure_work()

    def measure_work(self) -> EpochWork:
        """What the present sampler's steps are made of."""
        return measure_epoch(
            self.sampler,
            self.data.lengths,
            lambda rows: cut_rows(
                rows, strategy=self.strategy, mesh=self.mesh, micro_batch_size=self.micro_batch_size
            ),
        )

    def validation_pass(self, micro_batch_size: int | None) -> int:
        """Rows of this rank that validation takes together."""
        return (self.strategy.passes or 1) * validation_rows(
            self.strategy,
            self.validation,
            mesh=self.mesh,
            micro_batch_size=micro_batch_size,
            batch_size=self.train_section["batch_size"],
        )

    def measure_validation(self, micro_batch_size: int | None) -> int:
        """The elements of the present validation split, on all ranks together."""
        together = self.validation_pass(micro_batch_size) * self.mesh.data_ranks
        return measure_passes(self.validation.lengths, rows=len(self.validation), together=together)

    @contextmanager
    def real_feed(self) -> Iterator[None]:
        """Hold for the body what the feed of the whole training holds: a chunk in use, one read ahead."""
        with closing(self.feed.batches(0)) as batches:
            for _ in range(min(2, self.steps)):  # the first chunk is a single step
                next(batches)
            yield

    def agree(self, value: float) -> float:
        """The mean of the ranks' values: each decides the same by it."""
        return sum_over_ranks([value], self.mesh)[0] / self.mesh.world

    def climb(self, rows: int, *, validation_rows: int) -> Rung:
        """Take a few steps of one pass of `rows` rows, validate once; the weights stay as they are."""
        together = rows * self.mesh.data_ranks
        heaviest = pick_heaviest(self.sampler, self.data.lengths, self.work, together)
        data = cut_out(self.data, np.tile(heaviest, _RUNG_STEPS))
        sampler = Sampler(samples=len(data), batch_size=together, seed=_SEED)
        feed = self._feed(data, sampler, micro_batch_size=None, steps=_RUNG_STEPS)
        state = TrainState(
            strategy=self.strategy, update=self.update, average=self.average, step=0, turns=self.turns
        )
        loop = train_steps(
            state,
            feed=feed,
            loss_sum=self.training_loss(),
            rate_at=lambda _: 0.0,
            mesh=self.mesh,
            seed=_SEED,
        )
        begin_peak(self.mesh)
        ends = [time.perf_counter()]
        with closing(loop) as reports:
            for report in reports:
                wait_for(self.mesh)
                ends.append(time.perf_counter())
                if report.step > 1 and self.agree(ends[-1] - ends[0]) > _RUNG_SECONDS:
                    break
        peak = read_peak(self.mesh)
        return Rung(
            rows=rows,
            seconds=float(min(np.diff(ends)[1:])),  # the first step makes the moments
            peak=peak,
            validation_rows=validation_rows,
            validation_peak=self._validate(validation_rows),
        )

    def _validate(self, rows: int) -> Peak:
        """What one pass of validation over `rows` rows takes."""
        count = min(len(self.validation), rows * self.mesh.data_ranks)
        chosen = pick_longest(self.validation.lengths, rows=len(self.validation), count=count)
        begin_peak(self.mesh)
        with separate_blocks():
            self.validate(cut_out(self.validation, chosen), micro_batch_size=rows)
        return read_peak(self.mesh)

    def shorten(self, extent: Extent) -> None:
        """Make `train` a miniature of itself."""
        steps, batch_size = extent.steps // EPOCHS, extent.batch_size
        rows = pick_steps(self.sampler, self.work, steps=steps, batch_size=batch_size)
        shown = pick_longest(self.validation.lengths, rows=len(self.validation), count=extent.validation_rows)
        self.data, self.validation = cut_out(self.data, rows), cut_out(self.validation, shown)
        self.sampler = Sampler(
            samples=len(rows), batch_size=batch_size, seed=_SEED, lengths=self.data.lengths
        )
        self.steps, self.micro_batch_size = extent.steps, extent.micro_batch_size
        self.train_section |= {
            "epochs": EPOCHS,
            "batch_size": extent.batch_size,
            "record_every_steps": extent.record_every,
            "checkpoint_every_steps": extent.steps // EPOCHS,
            "validate_every_epochs": 1,
            "keep_checkpoints": 1,
            "keep_best": None,
            "early_stopping": None,
        }
        self.feed = self._feed(
            self.data, self.sampler, micro_batch_size=extent.micro_batch_size, steps=extent.steps
        )

    def _feed(self, data: TrainingSet, sampler: Sampler, *, micro_batch_size: int | None, steps: int) -> Feed:
        return Feed(
            data,
            sampler,
            self.strategy,
            self.mesh,
            micro_batch_size=micro_batch_size,
            seed=_SEED,
            steps=steps,
        )


def begin_peak(mesh: Mesh) -> None:
    """Let `read_peak` begin again from what is in use now."""
    give_back_memory()
    reset_peak()
    if mesh.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(mesh.device)


def read_peak(mesh: Mesh) -> Peak:
    """The most memory since `begin_peak`; of the address space, since the process began."""
    on_device = torch.cuda.max_memory_allocated(mesh.device) if mesh.device.type == "cuda" else 0
    return Peak(resident=peak_resident(), address_space=peak_address_space(), device=on_device)


def wait_for(mesh: Mesh) -> None:
    """Return when the device has done what it was given."""
    if mesh.device.type == "cuda":
        torch.cuda.synchronize(mesh.device)
