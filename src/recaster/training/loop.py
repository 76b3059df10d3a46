"""The training loop: a generator that yields after each optimizer step.

What happens between steps (record, validate, save, stop) is the body of the caller's `for`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from recaster.core.errors import DivergedError
from recaster.core.seeds import derive_seed
from recaster.distributed.mesh import Mesh
from recaster.training.sampler import Sampler
from recaster.training.trainable import Trainable, TrainingSet


@dataclass(slots=True, kw_only=True)
class TrainState:
    """What a step changes."""

    model: nn.Module
    """As wrapped by the strategy."""
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
    """Over this rank's targets, nats."""
    targets: int
    """Of this rank."""
    learning_rate: float
    gradient_norm: float
    """Over all ranks, before clipping."""
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
    state.model.train()
    epoch, order = -1, sampler.order(0)
    while state.step < options.steps:
        if state.step // sampler.steps_per_epoch != epoch:
            epoch = state.step // sampler.steps_per_epoch
            order = sampler.order(epoch)
        batch = sampler.rows(order, state.step)
        rows = batch[mesh.rank :: mesh.world]
        torch.manual_seed(derive_seed(options.seed, "step", state.step, mesh.rank))
        inputs, targets = data.batch(rows, seed=derive_seed(options.seed, "augment", epoch))
        logits = state.model(inputs.to(mesh.device))
        loss_sum = workload.loss_sum(logits, targets.to(mesh.device), label_smoothing=options.label_smoothing)
        # Ranks average their gradients; scaling by the global count makes that the mean over all targets,
        # also when a rank has fewer of them.
        torch.autograd.backward(loss_sum * (mesh.world / len(batch)))
        norm = float(clip_grad_norm_(state.model.parameters(), options.max_gradient_norm))
        if not math.isfinite(norm):
            raise DivergedError(
                "The gradient is not finite; nothing was updated.",
                where=f"step {state.step + 1}, rank {mesh.rank}, samples {data.ids(rows)}",
                value=f"loss {float(loss_sum) / max(1, len(rows))}, gradient norm {norm}",
                repair="lower train.optimizer.learning_rate, or look at these samples",
            )
        rate = learning_rate_at(state.step, options)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        yield StepReport(
            step=state.step,
            epoch=epoch,
            loss_sum=float(loss_sum.detach()),
            targets=len(rows),
            learning_rate=rate,
            gradient_norm=norm,
            ends_epoch=state.step % sampler.steps_per_epoch == 0,
        )
