"""The search verb: try values, stop what lags, keep what was found, in any number of commands.

study ──ask──► trial ──train, in a thread of its own──► validations ──report──► study: go on, or stop
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from math import ceil, isfinite
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from recaster.core.errors import RecasterError, RecipeError, SearchError, StoppedError
from recaster.core.files import write_bytes, write_json
from recaster.core.hashing import hash_value
from recaster.core.progress import Reporter
from recaster.core.steps import StepResult, fingerprint
from recaster.pipeline.base_verbs import fetch_cast_base
from recaster.pipeline.data_verbs import prepare, snapshot, validate, version_data
from recaster.pipeline.finished import find_data_steps
from recaster.pipeline.inputs import flatten, train_inputs
from recaster.pipeline.open_cast import Cast, open_cast
from recaster.pipeline.search_summary import (
    SearchSummary,
    params_of,
    read_summary,
    search_fingerprint,
    search_folder,
    search_section,
    show_metric,
    sum_up,
    table_of,
)
from recaster.pipeline.search_trial import (
    STOPPED,
    TrialJob,
    TrialOutcome,
    TrialReporter,
    Validation,
    make_overrides,
    run_trial,
)
from recaster.search.study import COMPLETE, FAILED, PRUNED, RUNNING, Study, Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient

RunTrial = Callable[[TrialJob], TrialOutcome]
_Event = Validation | Future[TrialOutcome]


def search(cast: Cast, reporter: Reporter) -> SearchSummary:
    """Prepare the data once, then run the recipe's search, without an orchestrator.

    Raises:
        RecipeError: the recipe has no search.
        SearchError: no trial is complete.
    """
    search_section(cast)
    raw = snapshot(cast, reporter)
    checked = validate(cast, raw)
    fetch_cast_base(cast, reporter)
    prepared = prepare(cast, raw, checked)
    version_data(cast, raw, checked, prepared, reporter)
    return search_trials(cast, prepared, raw, reporter)


def find_search(cast: Cast) -> SearchSummary | None:
    """The summary of a search with nothing left to do, or None; imports no torch, MLflow or Prefect."""
    search_section(cast)
    found = find_data_steps(cast)
    return read_summary(cast, search_fingerprint(cast, found[-1])) if found else None


def search_trials(
    cast: Cast,
    prepared: StepResult,
    snapshot: StepResult,
    reporter: Reporter,
    *,
    run_trial: RunTrial = run_trial,
) -> SearchSummary:
    """Run the trials that are still to run, `search.parallel` at once; judge them by the validation split.

    Args:
        run_trial: trains one trial; called in a thread that has this one's context.

    Raises:
        SearchError: no trial is complete.
        ServiceError, StorageError: the same command goes on from here.
    """
    return _Search(cast, prepared, snapshot, reporter, run_trial).run()


class _Search:
    """One command's part of a search. Only its own thread touches the study."""

    def __init__(
        self,
        cast: Cast,
        prepared: StepResult,
        snapshot: StepResult,
        reporter: Reporter,
        run_trial: RunTrial,
    ) -> None:
        from recaster.tracking.runs import open_tracking

        self.cast, self.prepared, self.snapshot, self.reporter = cast, prepared, snapshot, reporter
        self.run_trial, self.section = run_trial, search_section(cast)
        self.name = search_fingerprint(cast, prepared)
        self.client: MlflowClient = open_tracking(cast.settings)
        self.study = Study(
            search_folder(cast), self.name, self.section, most_validations=_most_validations(cast)
        )
        self.events: SimpleQueue[_Event] = SimpleQueue()
        self.stops: dict[int, threading.Event] = {}
        self.numbers: dict[Future[TrialOutcome], int] = {}
        self.pruned: set[int] = set()
        self.turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self.parent = ""

    def run(self) -> SearchSummary:
        """Bring the search to its end, or as far as its time allows."""
        self.parent = self._open_parent()
        status = "FAILED"
        try:
            self._run_trials()
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            if status != "FINISHED":
                self._leave(status)
        return self._finish()

    def _run_trials(self) -> None:
        deadline = time.monotonic() + (self.section.timeout_seconds or float("inf"))
        unfinished = [trial for trial in self.study.trials() if trial.state == RUNNING]
        with ThreadPoolExecutor(self.section.parallel, thread_name_prefix="trial") as pool:
            try:
                while True:
                    while len(self.stops) < self.section.parallel and time.monotonic() < deadline:
                        if (trial := self._next(unfinished)) is None:
                            break
                        self._start(pool, trial)
                    if not self.stops:
                        return
                    self._handle(self.events.get())
            except BaseException:
                for stop in self.stops.values():
                    stop.set()
                raise

    def _next(self, unfinished: list[Trial]) -> Trial | None:
        """A trial that a killed command left running comes before any new one."""
        if unfinished:
            return self.study.take_up(unfinished.pop(0).number)
        return self.study.ask()

    def _start(self, pool: ThreadPoolExecutor, trial: Trial) -> None:
        self._check_recipe()
        number, overrides = trial.number, make_overrides(trial.values)
        self.stops[number] = threading.Event()
        job = TrialJob(
            number=number,
            cast=self.cast,
            overrides=overrides,
            prepared=self.prepared,
            snapshot=self.snapshot,
            reporter=TrialReporter(self.reporter, number, alone=self.section.parallel == 1),
            tags=self._tags(number, RUNNING),
            tell=self.events.put,
            stop=self.stops[number],
            turn=self.turns[hash_value(overrides)],
        )
        # The context carries the flow that the trial belongs to, where there is one.
        future = pool.submit(copy_context().run, self.run_trial, job)
        self.numbers[future] = number
        future.add_done_callback(self.events.put)

    def _check_recipe(self) -> None:
        """Trials read the recipe file: one that was edited meanwhile would mix two searches."""
        present = open_cast(self.cast.path, self.cast.overrides)
        if present.recipe.search is None or search_fingerprint(present, self.prepared) != self.name:
            raise RecipeError(
                "The recipe changed while its search ran.",
                where=str(self.cast.path),
                repair="the same command searches as the recipe is now; put it back to go on as before",
            )

    def _handle(self, event: _Event) -> None:
        if isinstance(event, Validation):
            self._judge(event)
        else:
            self._end(self.numbers.pop(event), event.result())

    def _judge(self, event: Validation) -> None:
        number = event.number
        if number in self.pruned or not isfinite(event.metric):
            return
        # Decided record by record, whether the training is ahead or not: the fate of a trial is a function
        # of what was measured, never of when it was looked at. After the last there is nothing to save.
        if self.study.report(number, event.validation, event.metric) and not event.last:
            self.pruned.add(number)
            self.stops[number].set()

    def _end(self, number: int, outcome: TrialOutcome) -> None:
        state, reason = outcome.state, outcome.reason
        if number in self.pruned:
            state, reason = PRUNED, ""
        elif state == STOPPED:
            raise StoppedError("The search was stopped.", repair="the same command goes on from here")
        elif state == COMPLETE and not isfinite(outcome.metric or 0.0):
            state, reason = FAILED, f"{self.section.metric} is {outcome.metric}"
        trial = self.study.trials()[number]
        # MLflow first: should this process die in between, the trial is still running and comes here again.
        run_id = self._tag_trial(trial, state, reason)
        notes = {"run_id": run_id, "reason": reason, "overrides": list(make_overrides(trial.values))}
        self.study.tell(number, state, outcome.metric, notes)
        del self.stops[number]
        self._tell_people(self.study.trials()[number], outcome)

    def _tell_people(self, trial: Trial, outcome: TrialOutcome) -> None:
        best = self.study.best()
        so_far = f"; best {show_metric(best.metric)} of trial {best.number}" if best else ""
        values = " ".join(trial.notes["overrides"])
        ended = f"{trial.state} {show_metric(trial.metric)}".strip()
        reason = f" ({trial.notes['reason']})" if trial.notes["reason"] else ""
        self.reporter.say(
            f"trial {trial.number + 1} of {self.study.most_trials}: {ended}{reason} "
            f"in {outcome.seconds:.1f} s, {values}{so_far}"
        )

    def _tags(self, number: int, state: str) -> dict[str, str]:
        return {
            "mlflow.parentRunId": self.parent,
            "mlflow.source.name": f"recaster search {self.cast.path.name}",
            "recaster.search": self.name,
            "recaster.trial": str(number),
            "recaster.trial_state": state,
        }

    def _tag_trial(self, trial: Trial, state: str, reason: str) -> str:
        """Tag the trial's own run; empty when its values made no recipe, and so no run."""
        from recaster.tracking.runs import find_run, tag_run

        try:
            cast = open_cast(self.cast.path, [*self.cast.overrides, *make_overrides(trial.values)])
        except RecipeError:
            return ""
        uri, name = self.cast.settings.tracking_uri, fingerprint(train_inputs(cast, self.prepared))
        run_id = find_run(self.client, uri=uri, experiment=self.cast.recipe.name, fingerprint=name)
        if run_id:
            tags = self._tags(trial.number, state)
            tags |= {"recaster.trial_reason": reason} if reason else {}
            tag_run(self.client, run_id, uri=uri, tags=tags)
        return run_id or ""

    def _open_parent(self) -> str:
        from recaster.tracking.runs import ensure_run

        changeable = {"trials": self.section.trials, "parallel": self.section.parallel}
        return ensure_run(
            self.client,
            settings=self.cast.settings,
            experiment=self.cast.recipe.name,
            name=f"{self.cast.recipe.name}-search-{self.name[:8]}",
            fingerprint=f"search-{self.name}",
            params=flatten(params_of(self.section)),
            tags={
                "recaster.data_version": self.snapshot.content,
                "mlflow.source.name": f"recaster search {self.cast.path.name}",
                **{f"search.{key}": str(value) for key, value in changeable.items()},
            },
        )

    def _leave(self, status: str) -> None:
        """End the parent run of a search that was cut short; the first trouble is the one to report."""
        from recaster.tracking.runs import service_errors

        uri = self.cast.settings.tracking_uri
        try:
            with service_errors(uri):
                self.client.set_terminated(self.parent, status)
        except RecasterError as error:
            self.reporter.say(f"warning: the search's MLflow run stays open ({error.what})")

    def _finish(self) -> SearchSummary:
        best = self.study.best()
        if best is None:
            self._leave("FAILED")
            raise _no_trial(self.cast, self.study.trials())
        summary = sum_up(self.cast, self.name, self.study, best, self.parent)
        self._close_parent(summary)
        return summary

    def _close_parent(self, summary: SearchSummary) -> None:
        from recaster.tracking.runs import close_search_run

        ended = sum(summary.counts[state] for state in (COMPLETE, PRUNED, FAILED))
        close_search_run(
            self.client,
            self.parent,
            uri=self.cast.settings.tracking_uri,
            status="FINISHED",
            tags={
                "best.trial": str(summary.best["trial"]),
                "best.run_id": summary.best["run_id"],
                **{f"best.{key}": json.dumps(value) for key, value in summary.best["values"].items()},
            },
            metrics={f"best/{summary.metric}": summary.best["metric"]}
            | {f"search/{state}": float(count) for state, count in summary.counts.items()}
            | {f"importance/{key}": share for key, share in summary.importance.items()},
            step=ended,
            files=_write_files(search_folder(self.cast) / self.name, summary, self.study.trials()),
        )


def _write_files(folder: Path, summary: SearchSummary, trials: list[Trial]) -> list[Path]:
    from recaster.search.plots import plot_history, plot_importance

    history, table = folder / "history.png", folder / "trials.csv"
    plot_history(trials, summary.metric, lower_is_better=summary.lower_is_better, path=history)
    write_bytes(table, table_of(summary.trials).encode())
    if not summary.importance:
        return [history, table]
    plot, shares = folder / "importance.png", folder / "importance.json"
    plot_importance(summary.importance, summary.metric, plot)
    write_json(shares, summary.importance)
    return [history, table, plot, shares]


def _most_validations(cast: Cast) -> int:
    """Validations of the longest trial, the scale of hyperband."""
    train, parameter = cast.recipe.train, search_section(cast).parameters.get("train.epochs")
    values: list[Any] = [parameter.high, *(parameter.choices or [])] if parameter else [train.epochs]
    epochs = max(int(value) for value in values if value is not None)
    return ceil(epochs / train.validate_every_epochs)


def _no_trial(cast: Cast, trials: list[Trial]) -> SearchError:
    reasons = list(dict.fromkeys(str(trial.notes["reason"]) for trial in trials if trial.notes.get("reason")))
    return SearchError(
        "No trial of the search is complete.",
        where=str(search_folder(cast)),
        value="; ".join(reasons) or f"{len(trials)} trials",
        repair="correct the recipe or the values to try, or raise search.trials and run the same command",
    )
