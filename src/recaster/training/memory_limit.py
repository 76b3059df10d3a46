"""When memory runs out: half the micro-batch, twice the passes, the same global batch, said aloud.

The rank notes the smaller size in the run directory and ends; the launcher starts all ranks again,
which go on from the newest checkpoint. So it is the same for every strategy, and a resumed run
keeps the size.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from recaster.core.errors import OutOfMemoryError
from recaster.core.files import read_json, write_json

MICRO_BATCH = "micro_batch.json"
_CPU_WORDS = ("can't allocate memory", "Cannot allocate memory", "std::bad_alloc")


@contextmanager
def memory_limit(run_dir: Path, train: Mapping[str, Any], *, data_ranks: int) -> Iterator[int | None]:
    """Yield the micro-batch size to use, rows a pass; None for all of a rank's share of a step.

    When memory runs out in the body the process ends, and the next start takes half the size.

    Raises:
        OutOfMemoryError: memory ran out with one row.
    """
    share = math.ceil(train["batch_size"] / data_ranks)
    size: int | None = train["micro_batch_size"]
    if (run_dir / MICRO_BATCH).exists():
        size = min(int(read_json(run_dir / MICRO_BATCH)["micro_batch_size"]), share)
    try:
        yield size
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _halve(run_dir, size or share, error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a tensor did not fit, on the CPU or a GPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        word in str(error) for word in _CPU_WORDS
    )


def _halve(run_dir: Path, size: int, error: BaseException) -> None:
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    if size == 1:
        raise OutOfMemoryError(
            "Memory ran out with a micro-batch of one sample.",
            where="train.micro_batch_size",
            value=cause,
            repair="use a smaller model, bf16, activation_checkpointing, or strategy fsdp over more ranks",
        ) from error
    write_json(run_dir / MICRO_BATCH, {"micro_batch_size": size // 2})
    sys.stderr.write(
        f"warning: memory ran out with micro-batches of {size} samples ({cause}); going on with {size // 2}, "
        "in more passes over the same global batch\n"
    )
    sys.stderr.flush()
    # Not by sys.exit: the way out would wait for ranks that wait for this one.
    os._exit(os.EX_TEMPFAIL)
