"""From the rows of a global batch to the micro-batches of one rank.

rows 0…9, 2 data ranks, micro-batches of 2      rank 0:  0 2 | 4 6 | 8
                                                rank 1:  1 3 | 5 7 | 9
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recaster.distributed.mesh import Mesh
from recaster.distributed.strategies.build import count_passes
from recaster.distributed.strategies.protocol import MicroBatch, Strategy
from recaster.training.trainable import TrainingSet, read_batch, target_counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The rows of one forward and backward pass; those after `counted` only fill up the shape."""

    rows: NDArray[np.int64]
    counted: int


def own_rows(rows: NDArray[np.int64], mesh: Mesh) -> NDArray[np.int64]:
    """This rank's part of a global batch; ranks that share a model replica have the same."""
    return rows[mesh.data_rank :: mesh.data_ranks]


def cut_rows(
    rows: NDArray[np.int64], *, strategy: Strategy, mesh: Mesh, micro_batch_size: int | None
) -> list[Pass]:
    """This rank's passes over the global batch `rows`, as many on every rank.

    A rank that has run out of rows takes one that does not count, since its part in the
    other ranks' collectives is needed all the same.
    """
    mine = own_rows(rows, mesh)
    passes = strategy.passes or count_passes(
        len(rows), data_ranks=mesh.data_ranks, micro_batch_size=micro_batch_size
    )
    size = micro_batch_size or max(1, len(mine))
    pieces = []
    for number in range(passes):
        piece = mine[number * size : (number + 1) * size]
        wanted = strategy.rows_per_pass or max(1, len(piece))
        filled = (
            np.concatenate([piece, np.repeat(rows[:1], wanted - len(piece))])
            if wanted > len(piece)
            else piece
        )
        pieces.append(Pass(rows=filled, counted=len(piece)))
    return pieces


def cut_batch(
    rows: NDArray[np.int64],
    *,
    data: TrainingSet,
    strategy: Strategy,
    mesh: Mesh,
    micro_batch_size: int | None,
) -> list[MicroBatch]:
    """This rank's micro-batches of `rows`, as they are, without augmentation."""
    pieces, count = [], target_counter(data)
    for one in cut_rows(rows, strategy=strategy, mesh=mesh, micro_batch_size=micro_batch_size):
        inputs, targets = read_batch(data, mesh.device, one.rows, seed=None)
        pieces.append(
            MicroBatch(
                inputs=inputs,
                targets=targets,
                counted=one.counted,
                weight=count(one.rows[: one.counted]),
            )
        )
    return pieces
