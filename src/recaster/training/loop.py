"""The training loop: a generator that yields after each optimizer step.

What happens between steps (record, validate, save, stop) is the body of the caller's `for`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from recaster.core.errors import DivergedError
from recaster.core.seeds import derive_seed
from recaster.distributed.heartbeat import note
from recaster.distributed.mesh import Mesh
from recaster.distributed.strategies.protocol import Strategy
from recaster.models.losses import LossSum
from recaster.training.averaging import WeightAverage
from recaster.training.feed import Feed
from recaster.training.micro_batches import own_rows
from recaster.training.turns import Turns
from recaster.training.update import Update


@dataclass(slots=True, kw_only=True)
class TrainState:
    """What a step changes."""

    strategy: Strategy
    """Holds the model."""
    update: Update
    """Holds the optimizers."""
    average: WeightAverage | None
    step: int
    """Optimizer steps completed."""
    turns: Turns | None = None
    """Of an alternating model."""


@dataclass(slots=True, kw_only=True)
class StepReport:
    """One finished step, as this rank saw it; its tensors are on the device, so that nothing waits."""

    step: int
    """Steps completed, from 1."""
    epoch: int
    """From 0."""
    loss_sum: Tensor
    """Over this rank's targets, shape `()`; to ignore where `targets` is 0."""
    rows: int
    """Of this rank; 0 where another rank reports for the same rows."""
    targets: int
    """That count in these rows."""
    learning_rate: float
    """Of a group with the whole rate."""
    gradient_norm: Tensor
    """Of the mean gradient over the global batch, before clipping, shape `()`."""
    ends_epoch: bool
    part: str | None = None
    """Of an alternating model: which part the step trained."""


def train_steps(
    state: TrainState,
    *,
    feed: Feed,
    loss_sum: LossSum,
    rate_at: Callable[[int], float],
    mesh: Mesh,
    seed: int,
) -> Generator[StepReport]:
    """Advance `state` in place to `feed.steps`, one optimizer step for each report that is taken.

    Every random choice is a function of (seed, step, rank or row), so a run that was cut
    and resumed at any step makes the same choices, without random states to carry along.

    Args:
        rate_at: the learning rate of a step (from 0).

    Raises:
        DivergedError: loss or gradient became non-finite; weights are those of the step before. On a
            GPU it is raised by `check_finite`, which the caller calls whenever it waits for the device.
    """
    strategy, update = state.strategy, state.update
    strategy.module.train()
    on_cpu = mesh.device.type == "cpu"
    speaks = mesh.speaks
    with closing(feed.batches(state.step)) as batches:
        for batch in batches:
            _seed_step(seed, state.step, mesh)
            part = state.turns.begin(state.step) if state.turns else None
            # Data ranks average their gradients; scaling by the global count makes that the mean over
            # all targets, also when a rank or a micro-batch has fewer of them.
            scale: float | Tensor = mesh.data_ranks / batch.targets
            if update.loss_scale is not None:
                scale = update.loss_scale * scale
            loss = strategy.accumulate(batch.micro_batches, loss_sum, scale=scale)
            rate = rate_at(state.step)
            norm = update.apply(loss, rate=rate, step=state.step + 1, part=part)
            if on_cpu:
                check_finite(state, feed=feed, mesh=mesh)
            state.step += 1
            note(step=state.step, phase="step")
            if state.average and (part is None or (state.turns and state.turns.is_averaged(part))):
                state.average.follow()
            yield StepReport(
                step=state.step,
                epoch=batch.epoch,
                loss_sum=loss,
                rows=sum(piece.counted for piece in batch.micro_batches) if speaks else 0,
                targets=sum(piece.weight for piece in batch.micro_batches) if speaks else 0,
                learning_rate=rate,
                gradient_norm=norm,
                ends_epoch=batch.ends_epoch,
                part=part,
            )


def check_finite(state: TrainState, *, feed: Feed, mesh: Mesh) -> None:
    """Raise when a step could not be taken since it was not finite; waits for the device.

    Raises:
        DivergedError: with the step, the rank and its sample ids.
    """
    if not (step := state.update.bad_step()):
        return
    sampler = feed.sampler
    rows = sampler.rows(sampler.order((step - 1) // sampler.steps_per_epoch), step - 1)
    raise DivergedError(
        "The loss or its gradient is not finite; nothing was updated.",
        where=f"step {step}, rank {mesh.rank}, samples {feed.data.ids(own_rows(rows, mesh))}",
        value=f"weights are those after step {step - 1}",
        repair="lower train.optimizer.learning_rate, or look at these samples",
    )


def _seed_step(seed: int, step: int, mesh: Mesh) -> None:
    """Seed dropout and the like; `torch.manual_seed` would also look for devices, at 0.1 ms a step."""
    value = derive_seed(seed, "step", step, mesh.random_stream)
    if mesh.device.type == "cuda":
        torch.cuda.manual_seed(value)
    torch.default_generator.manual_seed(value)
