"""A search on digits: what it finds, what it records, and what a kill in the middle leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from recaster import pipeline
from recaster.core.errors import SearchError
from recaster.core.progress import SilentReporter
from recaster.pipeline import Cast, SearchSummary
from recaster.training.journal import read_journal
from tests.conftest import Command
from tests.faults.processes import RUN, await_step, start_cast

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_QUICK = (
    "model.width=4",
    "train.epochs=1",
    "distributed={strategy: single, ranks: 1, max_restarts: 0}",
    "train.optimizer={name: sgd, learning_rate: 0.01}",
)
_RATES = (
    "search={metric: validation_accuracy, trials: 9, seed: 1, sampler: grid, parallel: 2, parameters: "
    "{train.optimizer.learning_rate: {choices: [0.05, 1.0e-5, 1.0e30]}}}"
)
_LAG = (
    "model.width=4",
    "train.epochs=40",
    "train.batch_size=128",
    "train.checkpoint_every_steps=10",
    "distributed={strategy: single, ranks: 1}",
    "search={metric: validation_loss, trials: 2, seed: 2, sampler: grid, "
    "pruner: {name: median, startup_trials: 1}, "
    "parameters: {train.optimizer.learning_rate: {choices: [0.01, 1.0e-7]}}}",
)


def _open(project: Path, *overrides: str) -> Cast:
    return pipeline.open_cast(project / "recipes" / "digits.yaml", overrides)


def _search(project: Path, *overrides: str) -> SearchSummary:
    return pipeline.search(_open(project, *overrides), SilentReporter())


def _trained(project: Path) -> list[Path]:
    return sorted((project / ".recaster" / "steps" / "train").glob("*/result.json"))


def test_a_search_finds_the_best_nests_its_runs_and_redoes_nothing(project: Path, command: Command) -> None:
    import mlflow

    settings = [text for override in (*_QUICK, _RATES) for text in ("--set", override)]
    done = command("search", "recipes/digits.yaml", "--json", *settings)
    assert done.returncode == 0, done.stderr
    summary = pipeline.find_search(_open(project, *_QUICK, _RATES))
    assert summary
    assert json.loads(done.stdout) == {**summary.to_json(), "written": False}
    assert summary.counts == {"complete": 2, "pruned": 0, "failed": 1, "running": 0}
    assert summary.best["values"] == {"train.optimizer.learning_rate": 0.05}
    (failed,) = [trial for trial in summary.trials if trial["state"] == "failed"]
    assert "DivergedError" in failed["reason"]
    # Judged by the validation split, as the journal has it.
    cast = _open(project, *_QUICK, *summary.best["overrides"])
    found = pipeline.run_to(cast, "train", SilentReporter())
    assert found.reused
    last = [r for r in read_journal(found.path / "journal.jsonl") if r["kind"] == "validation"][-1]
    assert summary.best["metric"] == last["accuracy"]

    client = mlflow.MlflowClient(cast.settings.tracking_uri)
    home = client.get_experiment_by_name("digits")
    assert home
    nested = client.search_runs([home.experiment_id], f"tags.`mlflow.parentRunId` = '{summary.run_id}'")
    assert {
        run.data.tags["recaster.trial"]: (run.data.tags["recaster.trial_state"], run.info.status)
        for run in nested
    } == {
        str(trial["trial"]): (trial["state"], {"complete": "FINISHED", "failed": "FAILED"}[trial["state"]])
        for trial in summary.trials
    }
    best = next(run for run in nested if run.info.run_id == summary.best["run_id"])
    assert best.data.metrics["validation/accuracy"] == last["accuracy"]
    assert best.data.params["train.optimizer.learning_rate"] == "0.05"
    parent = client.get_run(summary.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/validation_accuracy"] == last["accuracy"]
    assert json.loads(parent.data.tags["best.train.optimizer.learning_rate"]) == 0.05
    files = {file.path for file in client.list_artifacts(summary.run_id, "search")}
    assert {"search/history.png", "search/trials.csv", "search/importance.png"} <= files

    before = _trained(project)
    assert _search(project, *_QUICK, _RATES) == summary
    assert _trained(project) == before
    again = command("search", "recipes/digits.yaml", "--write", *settings)
    assert "nothing to do" in again.stderr
    assert "validation_accuracy" in again.stdout
    assert _open(project).recipe.train.optimizer.learning_rate == 0.05
    only = _RATES.replace("[0.05, 1.0e-5, 1.0e30]", "[1.0e30]")
    with pytest.raises(SearchError, match="DivergedError"):
        _search(project, *_QUICK, only)


def test_kill_9_then_the_same_command_ends_the_search_with_a_pruned_trial(project: Path) -> None:
    code = RUN.replace("pipeline.run(", "pipeline.search(")
    process = start_cast(project, *_LAG, code=code)
    run_dir = await_step(project, 60, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not pipeline.find_search(_open(project, *_LAG))

    summary = _search(project, *_LAG)
    assert [(trial["trial"], trial["state"]) for trial in summary.trials] == [(0, "complete"), (1, "pruned")]
    (result,) = _trained(project)
    assert result.parent.name == run_dir.name.removesuffix(".work")
    assert json.loads(result.read_text())["resumed_at"] >= 10
    steps = [r["step"] for r in read_journal(result.parent / "journal.jsonl") if r["kind"] == "train"]
    assert steps == sorted(set(steps))

    (stopped,) = (project / ".recaster" / "steps" / "train").glob("*.work")
    assert summary.trials[1]["validations"] < 40
    assert max(r["step"] for r in read_journal(stopped / "journal.jsonl")) < steps[-1]
