"""Data on the device ahead of the step: rows of many steps are read together, in a thread of their own.

step 0 | steps 1…k | steps k+1…m | …      while one chunk trains, the next is read, sent and augmented
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recaster.core.seeds import derive_seed
from recaster.distributed.mesh import Mesh
from recaster.distributed.strategies.protocol import MicroBatch, Strategy
from recaster.training.micro_batches import Pass, cut_rows
from recaster.training.sampler import Sampler
from recaster.training.trainable import TrainingSet, read_batch, target_counter

_CHUNK_BYTES = 32 << 20
_CHUNK_STEPS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """What one optimizer step takes."""

    epoch: int
    """From 0."""
    rows: NDArray[np.int64]
    """Of the global batch."""
    targets: int
    """That count in it, over all ranks."""
    micro_batches: Sequence[MicroBatch]
    """This rank's, on its device."""
    ends_epoch: bool


class Feed:
    """The batches of a run, from any step on; the same whatever step it begins at."""

    def __init__(
        self,
        data: TrainingSet,
        sampler: Sampler,
        strategy: Strategy,
        mesh: Mesh,
        *,
        micro_batch_size: int | None,
        seed: int,
        steps: int,
    ) -> None:
        self.data, self.sampler, self.steps = data, sampler, steps
        self._strategy, self._mesh, self._micro, self._seed = strategy, mesh, micro_batch_size, seed
        self._row_bytes = 0
        self._count_targets = target_counter(data)
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))
        self._stream: Any = torch.cuda.Stream() if mesh.device.type == "cuda" else None

    def batches(self, step: int) -> Generator[StepBatch]:
        """The batches of steps `step` (from 0) up to `steps`; close the iterator to end its thread."""
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as reader:
            coming: Future[_Chunk] | None = None
            while step < self.steps:
                chunk = coming.result() if coming else self._read(step)
                step = chunk.end
                coming = reader.submit(self._read, step) if step < self.steps else None
                if chunk.arrived is not None:
                    torch.cuda.current_stream().wait_event(chunk.arrived)
                yield from chunk.batches

    def _read(self, first: int) -> _Chunk:
        """The steps from `first` that are read together: within one epoch, and within a chunk's bytes."""
        epoch = first // self.sampler.steps_per_epoch
        if self._order[0] != epoch:
            self._order = (epoch, self.sampler.order(epoch))
        end = min(first + self._steps_together(), (epoch + 1) * self.sampler.steps_per_epoch, self.steps)
        rows = [self.sampler.rows(self._order[1], step) for step in range(first, end)]
        passes = [
            cut_rows(batch, strategy=self._strategy, mesh=self._mesh, micro_batch_size=self._micro)
            for batch in rows
        ]
        pieces, arrived = self._send(passes, derive_seed(self._seed, "augment", epoch))
        batches = [
            StepBatch(
                epoch=epoch,
                rows=batch,
                targets=self._count_targets(batch),
                micro_batches=piece,
                ends_epoch=(step + 1) % self.sampler.steps_per_epoch == 0,
            )
            for step, batch, piece in zip(range(first, end), rows, pieces, strict=True)
        ]
        return _Chunk(end=end, batches=batches, arrived=arrived)

    def _steps_together(self) -> int:
        if not self._row_bytes:  # the first step's rows tell
            return 1
        rows = max(1, self.sampler.batch_size // self._mesh.data_ranks)
        return max(1, min(_CHUNK_STEPS, _CHUNK_BYTES // (self._row_bytes * rows)))

    def _send(self, passes: list[list[Pass]], seed: int) -> tuple[list[list[MicroBatch]], Any]:
        if self._stream is None:
            return self._load(passes, seed), None
        with torch.cuda.stream(self._stream):
            pieces = self._load(passes, seed)
            arrived = torch.cuda.Event()
            arrived.record()
        return pieces, arrived

    def _load(self, passes: list[list[Pass]], seed: int) -> list[list[MicroBatch]]:
        if not self.data.uniform:
            return [[self._micro_batch(*self._batch(one.rows, seed), one) for one in step] for step in passes]
        inputs, targets = self._batch(np.concatenate([one.rows for step in passes for one in step]), seed)
        pieces, start = [], 0
        for step in passes:
            made = []
            for one in step:
                end = start + len(one.rows)
                made.append(self._micro_batch(inputs[start:end], targets[start:end], one))
                start = end
            pieces.append(made)
        return pieces

    def _batch(self, rows: NDArray[np.int64], seed: int) -> tuple[Tensor, Tensor]:
        inputs, targets = read_batch(self.data, self._mesh.device, rows, seed=seed)
        self._row_bytes = max(self._row_bytes, inputs.nbytes // max(1, len(rows)), 1)
        if self._stream is not None:
            # Made on this thread's stream, used on the main one: not to be given away before it is done.
            for value in (inputs, targets):
                value.record_stream(torch.cuda.default_stream())
        return inputs, targets

    def _micro_batch(self, inputs: Tensor, targets: Tensor, one: Pass) -> MicroBatch:
        weight = self._count_targets(one.rows[: one.counted])
        return MicroBatch(inputs=inputs, targets=targets, counted=one.counted, weight=weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    end: int
    """The step after its last one."""
    batches: list[StepBatch]
    arrived: Any
    """An event after which its tensors are on the GPU; None on a CPU."""
