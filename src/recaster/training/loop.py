"""The training loop: a generator that yields after each optimizer step.

What happens between steps (record, validate, save, stop) is the body of the caller's `for`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recaster.core.errors import DivergedError
from recaster.core.seeds import derive_seed
from recaster.distributed.gradients import clip_gradients
from recaster.distributed.mesh import Mesh
from recaster.distributed.strategies.protocol import Strategy
from recaster.training.micro_batches import cut_batch, own_rows
from recaster.training.sampler import Sampler
from recaster.training.trainable import Trainable, TrainingSet


@dataclass(slots=True, kw_only=True)
class TrainState:
    """What a step changes."""

    strategy: Strategy
    """Holds the model."""
    optimizer: torch.optim.Optimizer
    step: int
    """Optimizer steps completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One finished step, as this rank saw it."""

    step: int
    """Steps completed, from 1."""
    epoch: int
    """From 0."""
    loss_sum: float
    """Over this rank's targets, nats; 0 where another rank reports for the same rows."""
    targets: int
    """Of this rank; 0 likewise."""
    learning_rate: float
    gradient_norm: float
    """Of the whole model's mean gradient over the global batch, before clipping."""
    ends_epoch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """The recipe's decisions that the loop needs."""

    steps: int
    learning_rate: float
    schedule: str
    warmup_fraction: float
    label_smoothing: float
    max_gradient_norm: float
    micro_batch_size: int | None
    """Rows of one forward and backward pass on one rank; None for all of a step."""
    seed: int


def learning_rate_at(step: int, options: LoopOptions) -> float:
    """The rate of optimizer step `step` (from 0): a linear rise, then constant or a cosine to zero."""
    warmup = round(options.warmup_fraction * options.steps)
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    if options.schedule == "constant":
        return options.learning_rate
    progress = (step - warmup) / max(1, options.steps - warmup)
    return options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def train_steps(
    state: TrainState,
    *,
    data: TrainingSet,
    sampler: Sampler,
    workload: Trainable,
    mesh: Mesh,
    options: LoopOptions,
) -> Iterator[StepReport]:
    """Advance `state` in place to `options.steps`, one optimizer step for each report that is taken.

    Every random choice is a function of (seed, step, rank or row), so a run that was cut
    and resumed at any step makes the same choices.

    Raises:
        DivergedError: the gradient became non-finite; weights are those of the step before.
    """
    state.strategy.module.train()
    epoch, order = -1, sampler.order(0)

    def loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
        return workload.loss_sum(logits, targets, label_smoothing=options.label_smoothing)

    while state.step < options.steps:
        if state.step // sampler.steps_per_epoch != epoch:
            epoch = state.step // sampler.steps_per_epoch
            order = sampler.order(epoch)
        batch = sampler.rows(order, state.step)
        torch.manual_seed(derive_seed(options.seed, "step", state.step, mesh.random_stream))
        micro_batches = cut_batch(
            batch,
            data=data,
            strategy=state.strategy,
            mesh=mesh,
            micro_batch_size=options.micro_batch_size,
            seed=derive_seed(options.seed, "augment", epoch),
        )
        # Data ranks average their gradients; scaling by the global count makes that the mean over all
        # targets, also when a rank or a micro-batch has fewer of them.
        loss = state.strategy.accumulate(micro_batches, loss_sum, scale=mesh.data_ranks / len(batch))
        norm = clip_gradients(state.strategy.module, options.max_gradient_norm, mesh)
        mine = own_rows(batch, mesh)
        if not math.isfinite(norm):
            raise _diverged(step=state.step + 1, mesh=mesh, ids=data.ids(mine), loss=float(loss), norm=norm)
        rate = learning_rate_at(state.step, options)
        _update(state, rate)
        yield StepReport(
            step=state.step,
            epoch=epoch,
            loss_sum=float(loss) if mesh.speaks else 0.0,
            targets=len(mine) if mesh.speaks else 0,
            learning_rate=rate,
            gradient_norm=norm,
            ends_epoch=state.step % sampler.steps_per_epoch == 0,
        )


def _update(state: TrainState, rate: float) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1


def _diverged(*, step: int, mesh: Mesh, ids: list[str], loss: float, norm: float) -> DivergedError:
    return DivergedError(
        "The gradient is not finite; nothing was updated.",
        where=f"step {step}, rank {mesh.rank}, samples {ids}",
        value=f"loss {loss / max(1, len(ids))}, gradient norm {norm}",
        repair="lower train.optimizer.learning_rate, or look at these samples",
    )
