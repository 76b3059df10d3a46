"""Copies whose scheme of communication is chosen, and may change, while they train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recaster.distributed.communication.adviser import Adviser
from recaster.distributed.communication.link import now
from recaster.distributed.communication.protocol import Communication
from recaster.distributed.strategies.protocol import MicroBatch
from recaster.distributed.strategies.whole import WholeStrategy
from recaster.models.losses import LossSum


class AdvisedStrategy(WholeStrategy):
    """DistributedDataParallel is made once the scheme is known, and anew when it changes."""

    communication: Adviser
    _scheme: Communication | None = None

    def _begin(self) -> nn.Module:
        """The module itself: there is nothing to send before the first step."""
        return self.module

    def accumulate(
        self, micro_batches: Sequence[MicroBatch], loss_sum: LossSum, *, scale: float | Tensor
    ) -> Tensor:
        """See `Strategy.accumulate`."""
        scheme = self.communication.choose(
            lambda: self._rehearse(micro_batches, loss_sum, scale=scale),
            [value for value in self.module.parameters() if value.requires_grad],
        )
        if scheme is not self._scheme:
            self._change(scheme)
        if not self.communication.on_probation:
            return super().accumulate(micro_batches, loss_sum, scale=scale)
        started = now(self._mesh.device)
        loss = super().accumulate(micro_batches, loss_sum, scale=scale)
        self.communication.note_pass(now(self._mesh.device) - started)
        return loss

    def _change(self, scheme: Communication) -> None:
        self._drop_gradients()  # they may be views into the old one's buckets
        self.replica = self.module  # the old one takes its hooks with it
        self.replica = self._copy(self.communication, alike=self._scheme is not None)
        self._scheme = scheme

    def _rehearse(
        self, micro_batches: Sequence[MicroBatch], loss_sum: LossSum, *, scale: float | Tensor
    ) -> None:
        """Forward and backward that change nothing: not weights, buffers, gradients or random state."""
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        devices = [self._mesh.device] if self._mesh.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            for piece in micro_batches:
                logits = self._forward(self.module, piece)[: piece.counted]
                loss = loss_sum(logits, piece.targets[: piece.counted].to(self._mesh.device))
                torch.autograd.backward(loss * scale)
        for buffer, kept in buffers:
            buffer.copy_(kept)
        self._drop_gradients()

    def _drop_gradients(self) -> None:
        for parameter in self.module.parameters():
            parameter.grad = None
