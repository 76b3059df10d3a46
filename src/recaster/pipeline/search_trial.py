"""One trial of a search: an ordinary training with other values, watched while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaster.core.errors import DivergedError, RecipeError, StoppedError, TrainingError
from recaster.core.progress import Progress, Reporter
from recaster.core.steps import StepResult, fingerprint
from recaster.pipeline.inputs import train_inputs
from recaster.pipeline.model_verbs import train
from recaster.pipeline.open_cast import Cast, open_cast
from recaster.recipe.search_space import to_override
from recaster.search.study import COMPLETE, FAILED
from recaster.training.journal import JOURNAL, read_journal
from recaster.training.selection import find_best, should_stop

STOPPED = "stopped"
_WAIT_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One validation of a trial that trains."""

    number: int
    """The trial's."""
    validation: int
    """From 1."""
    metric: float
    last: bool
    """Nothing is left to train after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """How the training of a trial ended."""

    number: int
    state: str
    """`complete`, `failed`, or `stopped` because the search said so."""
    reason: str
    """Of a failure."""
    metric: float | None
    """Of the trained model, on the validation split."""
    seconds: float
    """Wall time now; close to none for a trial that was found finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """What the training of one trial needs."""

    number: int
    cast: Cast
    """The recipe as the search found it."""
    overrides: tuple[str, ...]
    """The trial's values, as `--set` takes them."""
    prepared: StepResult
    snapshot: StepResult
    reporter: Reporter
    tags: Mapping[str, str]
    """Of its MLflow run."""
    tell: Callable[[Validation], None]
    stop: threading.Event
    """Set from outside to end the training at its next look."""
    turn: threading.Lock
    """Held by the one trial that trains these very values."""


def make_overrides(values: Mapping[str, Any]) -> tuple[str, ...]:
    """A trial's values as `--set` takes them."""
    return tuple(to_override(key, value) for key, value in values.items())


def run_trial(job: TrialJob) -> TrialOutcome:
    """Train the trial's values, or find them finished; a failure that is the values' own is an outcome.

    Raises:
        ServiceError, StorageError, CheckpointError: nothing is wrong with the values; the same command
            goes on.
    """
    started = time.perf_counter()

    def end(state: str, reason: str = "", metric: float | None = None) -> TrialOutcome:
        seconds = round(time.perf_counter() - started, 3)
        return TrialOutcome(number=job.number, state=state, reason=reason, metric=metric, seconds=seconds)

    try:
        cast = open_cast(job.cast.path, [*job.cast.overrides, *job.overrides])
        watch = _JournalWatch(job, cast)
        while not job.turn.acquire(timeout=_WAIT_SECONDS):
            watch.check_stop()
        try:
            train(cast, job.prepared, job.snapshot, job.reporter, watch=watch, tags=job.tags)
        finally:
            job.turn.release()
            watch.read()  # what came after the last look, so that the same records lead to the same decision
    except StoppedError:
        return end(STOPPED)
    except (DivergedError, TrainingError, RecipeError) as error:
        return end(FAILED, reason=f"{type(error).__name__}: {str(error).splitlines()[0]}")
    return end(COMPLETE, metric=watch.final_metric())


class _JournalWatch:
    """Passes each validation of a run on, once and in order, and ends the run when it is told to."""

    def __init__(self, job: TrialJob, cast: Cast) -> None:
        self._job, self._train, self._told, self._size = job, cast.recipe.train, 0, -1
        search = job.cast.recipe.search
        self._name = "accuracy" if search and search.metric == "validation_accuracy" else "loss"
        step = fingerprint(train_inputs(cast, job.prepared))
        folder = cast.settings.steps / "train"
        self._places = (folder / step / JOURNAL, folder / f"{step}.work" / JOURNAL)

    def __call__(self) -> None:
        self.check_stop()
        path = self._journal()
        size = path.stat().st_size if path else -1
        if size != self._size:
            self._size = size
            self.read()

    def check_stop(self) -> None:
        """End the training when the search said so."""
        if self._job.stop.is_set():
            raise StoppedError(
                "Training was stopped by its search.", repair="the same command goes on from its checkpoint"
            )

    def read(self) -> None:
        """Pass on the validations that were not told yet."""
        records = self._records()
        steps = next((record["steps"] for record in records if record["kind"] == "train"), 0)
        found = [record for record in records if record["kind"] == "validation"]
        rule = self._train.early_stopping and self._train.early_stopping.model_dump()
        # A restarted rank takes records back and writes the same again: they are told by their count.
        for number, record in enumerate(found[self._told :], start=self._told + 1):
            last = record["step"] >= steps or bool(rule and should_stop(found[:number], rule))
            metric = float(record[self._name])
            self._job.tell(Validation(number=self._job.number, validation=number, metric=metric, last=last))
            self._told = number

    def final_metric(self) -> float:
        """The metric of the weights that came out."""
        found = [record for record in self._records() if record["kind"] == "validation"]
        kept = self._train.keep_best
        return float((find_best(found, kept) if kept else found[-1])[self._name])

    def _records(self) -> list[dict[str, Any]]:
        path = self._journal()
        return read_journal(path) if path else []

    def _journal(self) -> Path | None:
        return next((path for path in self._places if path.exists()), None)


class TrialReporter:
    """Says which trial speaks; shows the progress of training only where one trial trains at a time."""

    def __init__(self, reporter: Reporter, number: int, *, alone: bool) -> None:
        self._reporter, self._number, self._alone = reporter, number, alone

    def say(self, message: str) -> None:
        """Pass the line on with the trial's number."""
        mark = "warning: " if message.startswith("warning: ") else ""
        self._reporter.say(f"{mark}trial {self._number}: {message.removeprefix(mark)}")

    def advance(self, progress: Progress) -> None:
        """Pass the moment on."""
        if self._alone:
            self._reporter.advance(progress)
