"""A study: what is tried next depends on the seed and on the trials before, not on who asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recaster.recipe.search import SearchSection
from recaster.search.plots import plot_history, plot_importance
from recaster.search.study import Study

_PARAMETERS = {
    "train.optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.3},
    "model.width": {"low": 8, "high": 16, "step": 4},
}
_COUNTABLE = {
    "model.width": {"low": 8, "high": 16, "step": 4},
    "train.optimizer.name": {"choices": ["adamw", "sgd"]},
}


def _section(**changes: Any) -> SearchSection:
    whole = {"parameters": _PARAMETERS, "metric": "validation_loss", "trials": 4, "seed": 3, **changes}
    return SearchSection.model_validate(whole)


def _open(folder: Path, section: SearchSection) -> Study:
    return Study(folder, "study", section, most_validations=9)


def _metric(values: dict[str, Any]) -> float:
    return abs(values.get("train.optimizer.learning_rate", 0.01) - 0.02) + values["model.width"] / 100


def _run(folder: Path, section: SearchSection, *, cut: bool) -> list[dict[str, Any]]:
    """The values of all trials; `cut` leaves each trial to a study that was opened anew."""
    study = _open(folder, section)
    while trial := study.ask():
        if cut:
            study = _open(folder, section)
            assert study.take_up(trial.number) == trial
        study.tell(trial.number, "complete", _metric(trial.values), {"run_id": "r"})
    return [trial.values for trial in study.trials()]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "gp"])
def test_a_search_that_was_cut_goes_on_as_if_it_had_not_been(tmp_path: Path, sampler: str) -> None:
    start = {"startup_trials": 2} if sampler in {"tpe", "cmaes", "gp"} else {}
    section = _section(sampler=sampler, **start)
    whole = _run(tmp_path / "whole", section, cut=False)
    assert _run(tmp_path / "cut", section, cut=True) == whole
    assert len({str(values) for values in whole}) == section.trials
    other = section.model_copy(update={"seed": 4})
    assert _run(tmp_path / "other", other, cut=False) != whole


def test_a_grid_has_each_combination_once_and_ends(tmp_path: Path) -> None:
    section = _section(sampler="grid", parameters=_COUNTABLE, trials=100)
    tried = _run(tmp_path, section, cut=True)
    assert sorted((values["model.width"], values["train.optimizer.name"]) for values in tried) == [
        (width, name) for width in (8, 12, 16) for name in ("adamw", "sgd")
    ]


def test_a_trial_cut_off_while_its_values_are_drawn_gets_the_rest(tmp_path: Path) -> None:
    import optuna

    section = _section(sampler="random")
    study = _open(tmp_path, section)
    bare = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'trials.db'}")
    rate = bare.ask().suggest_float("train.optimizer.learning_rate", 1e-4, 1e-1, log=True)
    (cut,) = study.trials()
    assert set(cut.values) == {"train.optimizer.learning_rate"}
    whole = study.take_up(0)
    assert set(whole.values) == set(_PARAMETERS)
    assert whole.values["train.optimizer.learning_rate"] == pytest.approx(rate, rel=1e-5)
    assert len(study.trials()) == 1


@pytest.mark.parametrize(
    "pruner",
    [
        {"name": "median", "startup_trials": 1},
        {"name": "successive-halving", "reduction_factor": 2},
        {"name": "hyperband", "reduction_factor": 3},
    ],
)
def test_a_trial_that_lags_is_stopped_and_the_decision_is_kept(
    tmp_path: Path, pruner: dict[str, Any]
) -> None:
    section = _section(sampler="random", pruner=pruner, trials=40)
    stopped = []
    study = _open(tmp_path, section)
    for number in range(9):
        assert study.ask()
        value = float(number)  # each is worse than the one before
        told = [study.report(number, validation, value) for validation in (1, 2, 3)]
        if any(told):
            again = _open(tmp_path, section)
            assert not again.report(number, 1, -5.0)  # known already
            again.tell(number, "pruned", None, {})
            stopped.append(number)
            study = again
        else:
            study.tell(number, "complete", value, {})
    assert stopped
    assert 0 not in stopped
    best = study.best()
    assert best and best.number == 0
    assert {trial.metric for trial in study.trials() if trial.state == "pruned"} == {
        float(number) for number in stopped
    }


def test_nothing_is_pruned_without_a_pruner_and_failures_are_kept(tmp_path: Path) -> None:
    section = _section(metric="validation_accuracy")
    study = _open(tmp_path, section)
    for number, accuracy in enumerate([0.9, 0.95, 0.1]):
        study.ask()
        assert not study.report(number, 1, accuracy)
        study.tell(number, "complete", accuracy, {})
    study.ask()
    study.tell(3, "failed", None, {"reason": "DivergedError: at step 4"})
    best, last = study.best(), study.trials()[-1]
    assert best and best.metric == 0.95
    assert (last.state, last.metric, last.notes["reason"]) == ("failed", None, "DivergedError: at step 4")


def test_what_mattered(tmp_path: Path) -> None:
    section = _section(trials=10, sampler="random")
    study = _open(tmp_path, section)
    while trial := study.ask():
        study.tell(trial.number, "complete", 10 * trial.values["model.dropout"], {})
    shares = study.importance()
    assert next(iter(shares)) == "model.dropout"
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3)
    plot_importance(shares, section.metric, tmp_path / "importance.png")
    plot_history(study.trials(), section.metric, lower_is_better=True, path=tmp_path / "history.png")
    assert {path.read_bytes()[:4] for path in tmp_path.glob("*.png")} == {b"\x89PNG"}
