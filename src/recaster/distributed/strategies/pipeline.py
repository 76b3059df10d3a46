"""The pipeline: each rank runs some stages of the model, micro-batches flow through all of them.

rank 0  F0 F1 F2 B0 F3 B1 …      1F1B (Narayanan et al. 2019); with several stages a rank they are
rank 1     F0 B0 F1 B1 F2 B2 …   interleaved (Narayanan et al. 2021)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recaster.distributed.communication.protocol import AllReduce, Communication
from recaster.distributed.mesh import PIPE, Mesh
from recaster.distributed.strategies.chain import Part, cut_chain
from recaster.distributed.strategies.protocol import MicroBatch
from recaster.distributed.strategies.share import share_copies, share_parameters
from recaster.models.losses import LossSum


class PipelineStrategy:
    """torch's schedules over this rank's stages; every call has as many micro-batches of one shape."""

    def __init__(
        self,
        model: nn.Module,
        *,
        mesh: Mesh,
        precision: str,
        bucket_mib: int,
        copies: bool,
        stages_per_rank: int,
        passes: int,
        rows_per_pass: int,
    ) -> None:
        self._mesh, self._passes, self._rows = mesh, passes, rows_per_pass
        self.communication: Communication = AllReduce()
        ranks, place = mesh.size(PIPE), mesh.place(PIPE)
        self._first, self._last = place == 0, place == ranks - 1
        cuts = cut_chain(model, ranks * stages_per_rank)
        mine = list(range(place, len(cuts), ranks))
        parts = {number: Part(model, cuts[number], precision=precision) for number in mine}
        runners: dict[int, nn.Module] = {}
        for number, part in parts.items():
            share_parameters(part, mesh=mesh, precision=precision, copies=copies)
            placed = part.to(mesh.device)
            wrap = copies and mesh.data_ranks > 1
            runners[number] = share_copies(placed, mesh=mesh, bucket_mib=bucket_mib) if wrap else placed
        # All stages of this rank under one root, for the optimizer and the checkpoint.
        self.module: nn.Module = Part(
            model, [name for number in mine for name in cuts[number]], precision=precision
        )
        self._targets = torch.empty(0)
        self._loss_sum: LossSum = _no_loss
        self._scale: float | Tensor = 1.0
        self._schedule = self._build_schedule(runners, stages=len(cuts))

    def _build_schedule(self, runners: dict[int, nn.Module], *, stages: int) -> Any:
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

        group = self._mesh.group(PIPE)
        built = [
            PipelineStage(runner, number, stages, self._mesh.device, group=group)
            for number, runner in runners.items()
        ]
        # The loss is a sum and already scaled by the global count: nothing is left to divide.
        options: dict[str, Any] = {
            "n_microbatches": self._passes,
            "loss_fn": self._scaled_loss,
            "scale_grads": False,
        }
        if len(built) == 1:
            return Schedule1F1B(built[0], **options)
        return ScheduleInterleaved1F1B(built, **options)

    @property
    def rows_per_pass(self) -> int | None:
        """Buffers between stages have one shape."""
        return self._rows

    @property
    def passes(self) -> int | None:
        """The schedule is made for one number of micro-batches."""
        return self._passes

    def accumulate(
        self, micro_batches: Sequence[MicroBatch], loss_sum: LossSum, *, scale: float | Tensor
    ) -> Tensor:
        """See `Strategy.accumulate`."""
        self._loss_sum, self._scale = loss_sum, scale
        losses: list[Tensor] = []
        self._schedule.step(
            *self._inputs(micro_batches), **self._answers(micro_batches), losses=losses, return_outputs=False
        )
        # Of what the schedule returns, not summed up in the loss function: before the first step it is
        # also called on an unfilled output, to learn shapes.
        total = [loss.detach() for loss in losses]
        return torch.stack(total).sum() / scale if total else torch.zeros(())

    @torch.no_grad()
    def predict(self, micro_batches: Sequence[MicroBatch]) -> list[Tensor]:
        """See `Strategy.predict`."""
        self._loss_sum = _no_loss
        logits = self._schedule.eval(*self._inputs(micro_batches), **self._answers(micro_batches))
        if not self._last:
            return []
        pieces = logits.float().split(self._rows)
        return [piece[: rows.counted] for piece, rows in zip(pieces, micro_batches, strict=True)]

    def _inputs(self, micro_batches: Sequence[MicroBatch]) -> list[Tensor]:
        return [torch.cat([piece.inputs for piece in micro_batches])] if self._first else []

    def _answers(self, micro_batches: Sequence[MicroBatch]) -> dict[str, Tensor]:
        """The schedule hands the loss row numbers instead of targets: −1 is a row that does not count."""
        if not self._last:
            return {}
        self._targets = torch.cat([piece.targets for piece in micro_batches])
        numbers = torch.arange(len(self._targets)).view(len(micro_batches), self._rows)
        for row, piece in zip(numbers, micro_batches, strict=True):
            row[piece.counted :] = -1
        return {"target": numbers.flatten().to(self._mesh.device)}

    def _scaled_loss(self, logits: Tensor, numbers: Tensor) -> Tensor:
        counted = numbers >= 0
        return self._loss_sum(logits.float()[counted], self._targets[numbers[counted]]) * self._scale


def _no_loss(logits: Tensor, _: Tensor) -> Tensor:
    return logits.new_zeros(())
