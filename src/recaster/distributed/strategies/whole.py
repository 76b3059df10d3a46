"""Strategies in which a rank runs all layers: one process, copies, shards, parts of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from recaster.distributed.communication.protocol import Communication
from recaster.distributed.heartbeat import note_again
from recaster.distributed.mesh import Mesh
from recaster.distributed.strategies.protocol import MicroBatch
from recaster.distributed.strategies.share import autocast, share_copies, share_parameters
from recaster.models.losses import LossSum


class WholeStrategy:
    """Forward and backward of each micro-batch, with one reduction of gradients for all of them."""

    def __init__(
        self,
        model: nn.Module,
        *,
        mesh: Mesh,
        precision: str,
        bucket_mib: int,
        copies: bool,
        communication: Communication,
    ) -> None:
        self._mesh, self._copies, self._bucket_mib = mesh, copies, bucket_mib
        self._sharded = share_parameters(model, mesh=mesh, precision=precision, copies=copies)
        self._precision = "float32" if self._sharded else precision  # else the shards' policy casts
        self.module = model.to(mesh.device)
        self.communication = communication
        self.replica = self._begin() if copies else model
        """What forward runs through: torch's DistributedDataParallel for `ddp`, else the module itself."""
        self._ordered: nn.Module | None = None

    @property
    def rows_per_pass(self) -> int | None:
        """Any."""
        return None

    @property
    def passes(self) -> int | None:
        """Any."""
        return None

    def accumulate(
        self, micro_batches: Sequence[MicroBatch], loss_sum: LossSum, *, scale: float | Tensor
    ) -> Tensor:
        """See `Strategy.accumulate`."""
        if self._ordered is not self.replica:
            self._order_buckets(micro_batches[0])
        total: Tensor | None = None
        for number, piece in enumerate(micro_batches):
            with self._reducing(last=number == len(micro_batches) - 1):
                logits, targets = self._forward(self.replica, piece), piece.targets
                if piece.counted < len(targets):
                    logits, targets = logits[: piece.counted], targets[: piece.counted]
                loss = loss_sum(logits, targets)
                torch.autograd.backward(loss, torch.as_tensor(scale, dtype=loss.dtype, device=loss.device))
            total = loss.detach() if total is None else total + loss.detach()
            note_again()  # a step of many passes must not look like a hang
        return torch.zeros(()) if total is None else total

    @torch.no_grad()
    def predict(self, micro_batches: Sequence[MicroBatch]) -> list[Tensor]:
        """See `Strategy.predict`."""
        return [self._forward(self.module, piece)[: piece.counted] for piece in micro_batches]

    def _order_buckets(self, piece: MicroBatch) -> None:
        """Run one backward that changes nothing, after which the order of sums over ranks is settled.

        DistributedDataParallel rearranges its buckets after the first backward of every process, and a
        ring's sum over three or more ranks depends on a gradient's place: a resumed run would take its
        first step in another order than a whole run. Schemes with one bucket keep their own order.
        """
        self._ordered = self.replica
        scheme, ranks = self.communication, self._mesh.data_ranks if self._copies else 1
        if ranks < 3 or scheme.one_bucket or not scheme.averages_gradients:
            return
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        devices = [self._mesh.device] if self._mesh.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.autograd.backward(self._forward(self.replica, piece).sum() * 0.0)
        for buffer, kept in buffers:
            buffer.copy_(kept)
        for parameter in self.module.parameters():
            parameter.grad = None

    def _begin(self) -> nn.Module:
        return self._copy(self.communication)

    def _copy(self, scheme: Communication, *, alike: bool = False) -> nn.Module:
        """The module in DistributedDataParallel, whose gradients `scheme` now reduces.

        Args:
            alike: all ranks already have the same weights, which need not be sent.
        """
        replica = share_copies(
            self.module,
            mesh=self._mesh,
            bucket_mib=None if scheme.one_bucket else self._bucket_mib,
            alike=alike,
        )
        scheme.attach(replica)
        return replica

    def _forward(self, module: nn.Module, piece: MicroBatch) -> Tensor:
        with autocast(self._mesh.device, self._precision):
            logits: Tensor = module(piece.inputs)
        return logits.float()

    def _reducing(self, *, last: bool) -> AbstractContextManager[None]:
        if self._sharded:
            self.module.set_requires_gradient_sync(last)  # type: ignore[operator]
        elif self._copies and not (last and self.communication.averages_gradients):
            context: AbstractContextManager[None] = self.replica.no_sync()  # type: ignore[operator]
            return context
        return nullcontext()
