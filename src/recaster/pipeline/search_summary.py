"""What a search ended with, and the record of it that tells when nothing is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_json
from recaster.core.hashing import hash_value
from recaster.core.steps import StepResult, fingerprint
from recaster.pipeline.inputs import train_inputs
from recaster.pipeline.open_cast import Cast
from recaster.recipe.search import SearchSection
from recaster.search.study import COMPLETE, FAILED, PRUNED, RUNNING, Study, Trial

_NOT_PART = ("trials", "parallel", "timeout_seconds")
"""What may change without making the trials so far worthless."""
_SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """What a search ended with."""

    name: str
    """The model's."""
    search: str
    """The search's fingerprint, and its study's name."""
    metric: str
    lower_is_better: bool
    counts: dict[str, int]
    """Trials that are `complete`, `pruned`, `failed`, and `running` where the search was cut short."""
    wanted: int
    """Trials that the search ends with."""
    best: dict[str, Any]
    """`{trial, metric, values, overrides, run_id}` of the best complete trial."""
    importance: dict[str, float]
    """Each key's share in the metric's variance; empty when there are too few trials."""
    trials: list[dict[str, Any]]
    run_id: str
    """The parent run in MLflow."""

    @property
    def finished(self) -> bool:
        """Whether all trials came to an end."""
        return sum(self.counts[state] for state in (COMPLETE, PRUNED, FAILED)) >= self.wanted

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {**asdict(self), "finished": self.finished}

    def to_markdown(self) -> str:
        """The summary for a page."""
        rows = [
            f"| {trial['trial']} | {trial['state']} | {show_metric(trial['metric'])} "
            f"| {', '.join(f'{key}={value}' for key, value in trial['values'].items())} |"
            for trial in self.trials
        ]
        best = f"best {self.metric} {self.best['metric']:.6g}, trial {self.best['trial']}"
        table = ["| trial | state | metric | values |", "|---:|---|---:|---|", *rows]
        return "\n".join([f"# Search of {self.name}: {best}", "", *table])


def show_metric(value: float | None) -> str:
    """A metric for people."""
    return "" if value is None else f"{value:.6g}"


def search_section(cast: Cast) -> SearchSection:
    """The recipe's search.

    Raises:
        RecipeError: it has none.
    """
    if cast.recipe.search is None:
        raise RecipeError(
            "The recipe has no search.",
            where=str(cast.path),
            repair="add a section search: with parameters, metric, trials and seed; see docs/howto/search.md",
        )
    return cast.recipe.search


def search_fingerprint(cast: Cast, prepared: StepResult) -> str:
    """The name of the search: all that its trials depend on, the searched keys' present values left out."""
    section = search_section(cast)
    inputs = train_inputs(cast, prepared)
    for key in section.parameters:
        tree, (*sections, last) = inputs, key.split(".")
        for name in sections:
            tree = tree.get(name) or {}
        tree.pop(last, None)
    search = {name: value for name, value in section.model_dump().items() if name not in _NOT_PART}
    return fingerprint({"inputs": inputs, "search": search})


def search_folder(cast: Cast) -> Path:
    """Where the model's studies are kept."""
    return cast.settings.home / "search" / cast.recipe.name


def sum_up(cast: Cast, name: str, study: Study, best: Trial, run_id: str) -> SearchSummary:
    """Sum a search up, and record it beside its study."""
    section, trials = search_section(cast), study.trials()
    states = [trial.state for trial in trials]
    summary = SearchSummary(
        name=cast.recipe.name,
        search=name,
        metric=section.metric,
        lower_is_better=section.lower_is_better,
        counts={state: states.count(state) for state in (COMPLETE, PRUNED, FAILED, RUNNING)},
        wanted=study.most_trials,
        best={**_row(best), "overrides": best.notes.get("overrides", [])},
        importance=study.importance(),
        trials=[_row(trial) for trial in trials],
        run_id=run_id,
    )
    write_json(
        search_folder(cast) / name / _SUMMARY, {"store": cast.settings.tracking_uri, **asdict(summary)}
    )
    return summary


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.state,
        "metric": trial.metric,
        "validations": trial.validations,
        "values": trial.values,
        "reason": trial.notes.get("reason", ""),
        "run_id": trial.notes.get("run_id", ""),
    }


def read_summary(cast: Cast, name: str) -> SearchSummary | None:
    """The recorded summary of a search that has nothing left to do, or None."""
    path = search_folder(cast) / name / _SUMMARY
    if not path.exists():
        return None
    record = read_json(path)
    if record.pop("store") != cast.settings.tracking_uri:
        return None
    summary, section = SearchSummary(**record), search_section(cast)
    wanted = section.trials if section.sampler != "grid" else min(section.trials, summary.wanted)
    return summary if summary.finished and sum(summary.counts.values()) >= wanted else None


def params_of(section: SearchSection) -> dict[str, Any]:
    """What the search is, for a tracking server: the part of its section that never changes."""
    dumped = section.model_dump(mode="json", exclude=set(_NOT_PART), exclude_none=True)
    return {"search": dumped, "search_sha256": hash_value(dumped)}


def table_of(trials: Sequence[dict[str, Any]]) -> str:
    """The trials as CSV."""
    import csv
    from io import StringIO

    keys = sorted({key for trial in trials for key in trial["values"]})
    head = ["trial", "state", "metric", "validations", *keys, "reason", "run_id"]
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([{**trial, **trial["values"]}.get(name, "") for name in head] for trial in trials)
    return text.getvalue()
