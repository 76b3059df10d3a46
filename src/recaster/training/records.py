"""What the journal says of steps and of validations; the only places where a run waits for its device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recaster.distributed.heartbeat import note_again
from recaster.distributed.mesh import Mesh, sum_over_ranks
from recaster.distributed.strategies.protocol import Strategy
from recaster.models.losses import LossSum
from recaster.training.loop import StepReport
from recaster.training.micro_batches import cut_batch
from recaster.training.trainable import TrainingSet, Weighted

_VALIDATION_ROWS = 512


class StepWindow:
    """Gathers steps until their record is due."""

    def __init__(self, mesh: Mesh, *, steps: int, first: int) -> None:
        self._mesh, self._steps, self._first = mesh, steps, first
        self._began = self._window_began = time.perf_counter()
        self._loss: Tensor | None = None
        self._rows = self._targets = 0
        self._parts: dict[str, tuple[Tensor, int]] = {}

    def add(self, report: StepReport) -> None:
        """Take one step, without waiting for it."""
        if report.part:
            loss, targets = self._parts.get(report.part, (0.0, 0))
            self._parts[report.part] = (report.loss_sum + loss, report.targets + targets)
        if report.targets:
            self._loss = report.loss_sum if self._loss is None else self._loss + report.loss_sum
            self._rows += report.rows
            self._targets += report.targets

    def close(self, report: StepReport) -> dict[str, Any]:
        """The record of the steps since the last one, over all ranks; every rank calls it."""
        mine = float(self._loss) if self._loss is not None else 0.0
        loss, targets, rows = sum_over_ranks([mine, float(self._targets), float(self._rows)], self._mesh)
        now = time.perf_counter()
        step_seconds = (now - self._began) / (report.step - self._first)
        record = {
            "kind": "train",
            "steps": self._steps,
            "step": report.step,
            "epoch": report.epoch,
            "loss": loss / targets,
            "learning_rate": report.learning_rate,
            "gradient_norm": float(report.gradient_norm),
            "samples_per_second": rows / (now - self._window_began),
            "seconds_left": (self._steps - report.step) * step_seconds,
            "time": time.time(),
            **self._part_losses(),
        }
        self._loss, self._rows, self._targets, self._window_began = None, 0, 0, now
        return record

    def _part_losses(self) -> dict[str, float]:
        """Of an alternating model: the mean loss of each part that had a turn, which all ranks know alike."""
        losses = {}
        for part, (mine, count) in sorted(self._parts.items()):
            loss, targets = sum_over_ranks([float(mine), float(count)], self._mesh)
            losses[f"{part}_loss"] = loss / targets
        self._parts = {}
        return losses


def validation_rows(
    strategy: Strategy, data: TrainingSet, *, mesh: Mesh, micro_batch_size: int | None, batch_size: int
) -> int:
    """Rows of a rank's pass over `data` that `measure_validation` takes."""
    quick = math.ceil(batch_size / mesh.data_ranks) if isinstance(data, Weighted) else _VALIDATION_ROWS
    return strategy.rows_per_pass or micro_batch_size or quick


@torch.no_grad()
def measure_validation(
    strategy: Strategy,
    data: TrainingSet,
    *,
    mesh: Mesh,
    micro_batch_size: int | None,
    batch_size: int,
    loss_sum: LossSum,
    correct: Callable[[Tensor, Tensor], Tensor],
) -> dict[str, float]:
    """Mean loss a target and share of hits over `data`, on all ranks together.

    Args:
        micro_batch_size: rows of one pass, for memory's sake; None for what is quick.
        batch_size: rows of a training step: the most that a pass over a weighted set takes, whose rows
            have many targets.
    """
    strategy.module.eval()
    loss, hits, count = (torch.zeros((), dtype=torch.float64, device=mesh.device) for _ in range(3))
    rows = validation_rows(
        strategy, data, mesh=mesh, micro_batch_size=micro_batch_size, batch_size=batch_size
    )
    together = (strategy.passes or 1) * rows * mesh.data_ranks
    for start in range(0, len(data), together):
        pieces = cut_batch(
            np.arange(start, min(start + together, len(data))),
            data=data,
            strategy=strategy,
            mesh=mesh,
            micro_batch_size=rows,
        )
        note_again()
        for logits, piece in zip(strategy.predict(pieces), pieces, strict=mesh.speaks):
            if mesh.speaks:
                targets = piece.targets[: piece.counted]
                loss += loss_sum(logits, targets)
                hits += correct(logits, targets)
                count += piece.weight
    total, right, targets_seen = sum_over_ranks([float(loss), float(hits), float(count)], mesh)
    return {"loss": total / targets_seen, "accuracy": right / targets_seen, "time": time.time()}
