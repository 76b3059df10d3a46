"""What each part of a miniature took, read from the times that it left behind.

u … s … … K   validation   save   result        records every u steps; a checkpoint after step s = K/2,
 └─┘ └─────┘                                    which is written while the steps up to K go on
 step  step + what saving costs them
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recaster.preflight.miniature import Extent
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
    at = {record["step"]: float(record["time"]) for record in records if record["kind"] == "train"}
    (validated,) = (float(record["time"]) for record in records if record["kind"] == "validation")
    first, middle, last = extent.record_every, extent.save_after, extent.steps
    measured = (at[middle] - at[first]) / (middle - first) if middle > first else None
    folder = run_dir / CHECKPOINTS
    saved = {step: (checkpoint_path(folder, step) / STATE).stat().st_mtime for step in (middle, last)}
    beside = at[last] - at[middle] - (last - middle) * (measured or extent.step_guess)
    return Stages(
        step_seconds=measured,
        saving_seconds=max(0.0, beside),
        save_seconds=max(0.0, saved[last] - max(validated, saved[middle])),
        validation_seconds=max(0.0, validated - at[last]),
        result_seconds=max(0.0, ended - saved[last]),
        checkpoint_bytes=sum(path.stat().st_size for path in checkpoint_path(folder, last).iterdir()),
        weights_bytes=(run_dir / WEIGHTS).stat().st_size,
    )
