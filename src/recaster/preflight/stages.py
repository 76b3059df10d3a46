"""What each part of a miniature took, read from the times that it left behind.

steps   validation   steps and the first save   validation   save   result
└u…s┘                └s+u…2s┘                                     records every u steps, s in an epoch
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from recaster.preflight.miniature import EPOCHS, Extent
from recaster.training.checkpoint import STATE, checkpoint_path
from recaster.training.journal import JOURNAL, read_journal
from recaster.training.rank import CHECKPOINTS, WEIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Seconds and bytes of a miniature."""

    step_seconds: float | None
    """Of a step beside which nothing is saved; None where there were too few."""
    saving_seconds: float
    """By how much all steps beside one save were longer, its copying included."""
    save_seconds: float
    """From a save's beginning to its end, with nothing beside it."""
    validation_seconds: float
    """Of `Extent.validation_rows`."""
    result_seconds: float
    """From the last checkpoint to the result."""
    checkpoint_bytes: int
    weights_bytes: int


def read_stages(run_dir: Path, extent: Extent, *, ended: float) -> Stages:
    """The stages of the finished miniature in `run_dir`.

    Args:
        ended: when it returned, in `time.time`'s seconds.
    """
    records = read_journal(run_dir / JOURNAL)
    at, validated = (
        {record["step"]: float(record["time"]) for record in records if record["kind"] == kind}
        for kind in ("train", "validation")
    )
    first, middle, last = extent.record_every, extent.steps // EPOCHS, extent.steps
    measured = (at[middle] - at[first]) / (middle - first) if middle > first else None
    folder = run_dir / CHECKPOINTS
    saved = {step: (checkpoint_path(folder, step) / STATE).stat().st_mtime for step in (middle, last)}
    beside = at[last] - validated[middle] - (last - middle) * (measured or extent.step_guess)
    return Stages(
        step_seconds=measured,
        saving_seconds=max(0.0, beside),
        save_seconds=max(0.0, saved[last] - max(validated[last], saved[middle])),
        validation_seconds=mean(validated[step] - at[step] for step in (middle, last)),
        result_seconds=max(0.0, ended - saved[last]),
        checkpoint_bytes=sum(path.stat().st_size for path in checkpoint_path(folder, last).iterdir()),
        weights_bytes=(run_dir / WEIGHTS).stat().st_size,
    )
