"""A study: the trials of one search, kept in SQLite, so that any process may be killed at any moment.

    HOME/search/digits/trials.db    every study of the model; its name is the search's fingerprint

Optuna samples and prunes. It keeps no random state on disk, so a sampler is made anew for each trial
with a seed of its own: what is tried next is a function of the seed and of the trials before, and a
search that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.files import storage_errors
from recaster.core.seeds import derive_seed
from recaster.recipe.search import Pruner, SearchParameter, SearchSection
from recaster.recipe.search_space import clean_number, is_integral, list_values

if TYPE_CHECKING:
    import optuna

_LOCK_SECONDS = 60.0
_SEEDS = 2**32  # numpy takes 32 bits
COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial, as the study knows it now."""

    number: int
    """From 0."""
    state: str
    """`running`, `complete`, `pruned` or `failed`."""
    values: dict[str, Any]
    """What the recipe's keys were set to."""
    metric: float | None
    """Of the trained model; of a pruned trial its last validation; None for a failed one."""
    validations: int
    """How many were reported."""
    notes: dict[str, Any]
    """Whatever was told with the end: run id, reason, seconds."""


class Study:
    """The trials of one search; used by one thread of one process at a time."""

    def __init__(self, folder: Path, name: str, section: SearchSection, *, most_validations: int) -> None:
        import optuna
        from optuna.storages import RDBStorage

        self._section = section
        self._distributions = {key: _distribution(key, value) for key, value in section.parameters.items()}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            storage = RDBStorage(
                f"sqlite:///{folder / 'trials.db'}",
                engine_kwargs={"connect_args": {"timeout": _LOCK_SECONDS}},
            )
            self._study = optuna.create_study(
                storage=storage,
                study_name=name,
                direction="minimize" if section.lower_is_better else "maximize",
                pruner=_pruner(section.pruner, most_validations),
                load_if_exists=True,
            )

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [self._describe(trial) for trial in self._study.get_trials(deepcopy=False)]

    def take_up(self, number: int) -> Trial:
        """A running trial again, with the same values.

        One that was cut off while its values were drawn gets those that it lacks.
        """
        frozen = self._study.get_trials(deepcopy=False)[number]
        if set(frozen.params) != set(self._distributions):
            self._draw(self._attach(number, sampler=self._sampler(number)))
        return self.trials()[number]

    def ask(self) -> Trial | None:
        """The next trial; None when as many as the recipe asks for are there, or all that a grid has."""
        number = len(self._study.get_trials(deepcopy=False))
        if number >= self.most_trials:
            return None
        self._study.sampler = self._sampler(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how a sampler falls back at its first trials
            trial = self._study.ask()
        self._draw(trial)
        return self.trials()[trial.number]

    @property
    def most_trials(self) -> int:
        """How many trials the search ends with."""
        if self._section.sampler != "grid":
            return self._section.trials
        size = 1
        for key, parameter in self._section.parameters.items():
            size *= len(list_values(key, parameter))
        return min(size, self._section.trials)

    def report(self, number: int, validation: int, value: float) -> bool:
        """Take the metric of the trial's `validation`th validation (from 1); say whether to stop it.

        One that was reported before, by a process that was killed, is not taken twice.
        """
        trial = self._attach(number)
        known = self._study.get_trials(deepcopy=False)[number].intermediate_values
        if validation < max(known, default=0):
            return False
        if validation not in known:
            trial.report(value, validation)
        return bool(trial.should_prune())

    def tell(self, number: int, state: str, metric: float | None, notes: Mapping[str, Any]) -> None:
        """End a running trial as `complete` (with its metric), `pruned` or `failed`."""
        from optuna.trial import TrialState

        trial = self._attach(number)
        for name, value in notes.items():
            trial.set_user_attr(name, value)
        ends = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}
        self._study.tell(trial, metric if state == COMPLETE else None, state=ends[state])

    def best(self) -> Trial | None:
        """The complete trial with the best metric, the earliest of equals; None when none is complete."""
        complete = [trial for trial in self.trials() if trial.state == COMPLETE and trial.metric is not None]
        sign = 1 if self._section.lower_is_better else -1
        return min(complete, key=lambda trial: sign * (trial.metric or 0.0), default=None)

    def importance(self) -> dict[str, float]:
        """How much each key moved the metric, shares that add up to 1, largest first.

        Analysis of variance over a random forest (fANOVA, Hutter et al. 2014) of the complete trials;
        empty when they are too few, or all alike.
        """
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        complete = [trial for trial in self.trials() if trial.state == COMPLETE]
        if len(complete) < 2 or len({trial.metric for trial in complete}) < 2:
            return {}
        evaluator = FanovaImportanceEvaluator(seed=self._section.seed % _SEEDS)
        shares = get_param_importances(self._study, evaluator=evaluator)
        return {key: round(float(share), 4) for key, share in shares.items()}

    def _attach(self, number: int, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Trial:
        """A handle on a trial that exists, made with a sampler that draws nothing unless one is given."""
        import optuna

        self._study.sampler = sampler or optuna.samplers.RandomSampler()
        trials = self._study.get_trials(deepcopy=False)
        return optuna.Trial(self._study, trials[number]._trial_id)

    def _draw(self, trial: optuna.Trial) -> None:
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for key, distribution in self._distributions.items():
                if isinstance(distribution, optuna.distributions.CategoricalDistribution):
                    trial.suggest_categorical(key, distribution.choices)
                elif isinstance(distribution, optuna.distributions.IntDistribution):
                    trial.suggest_int(
                        key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
                    )
                elif isinstance(distribution, optuna.distributions.FloatDistribution):
                    trial.suggest_float(
                        key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
                    )

    def _describe(self, trial: optuna.trial.FrozenTrial) -> Trial:
        from optuna.trial import TrialState

        states = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED}
        values = {
            key: _clean(trial.params[key], parameter)
            for key, parameter in self._section.parameters.items()
            if key in trial.params
        }
        return Trial(
            number=trial.number,
            state=states.get(trial.state, RUNNING),
            values=values,
            metric=trial.value,
            validations=len(trial.intermediate_values),
            notes=dict(trial.user_attrs),
        )

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        from optuna import samplers

        section = self._section
        whole = derive_seed(section.seed, "search") % _SEEDS
        own = derive_seed(section.seed, "search", number) % _SEEDS
        start = section.startup_trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # qmc is marked as experimental
            match section.sampler:
                case "tpe":
                    return samplers.TPESampler(n_startup_trials=start or 10, seed=own)
                case "gp":
                    return samplers.GPSampler(n_startup_trials=start or 10, seed=own)
                case "cmaes":
                    return samplers.CmaEsSampler(n_startup_trials=start or 1, seed=own)
                case "qmc":  # one sequence for all trials
                    first = samplers.RandomSampler(seed=own)
                    return samplers.QMCSampler(scramble=True, seed=whole, independent_sampler=first)
                case "grid":  # one order for all trials
                    grid = {key: list_values(key, value) for key, value in section.parameters.items()}
                    return samplers.GridSampler(grid, seed=whole)
                case _:
                    return samplers.RandomSampler(seed=own)


def _clean(value: Any, parameter: SearchParameter) -> Any:
    if not isinstance(value, float) or parameter.choices is not None:
        return value
    low, high = float(parameter.low or 0), float(parameter.high or 0)
    return min(max(clean_number(value), low), high)


def _distribution(key: str, parameter: SearchParameter) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    low, high = parameter.low or 0, parameter.high or 0
    if is_integral(key):
        return IntDistribution(int(low), int(high), step=int(parameter.step or 1), log=parameter.log)
    return FloatDistribution(float(low), float(high), step=parameter.step, log=parameter.log)


def _pruner(section: Pruner, most_validations: int) -> optuna.pruners.BasePruner:
    from optuna import pruners

    match section.name:
        case "median":
            return pruners.MedianPruner(
                n_startup_trials=section.startup_trials, n_warmup_steps=section.min_validations - 1
            )
        case "successive-halving":
            return pruners.SuccessiveHalvingPruner(
                min_resource=section.min_validations, reduction_factor=section.reduction_factor
            )
        case "hyperband":
            return pruners.HyperbandPruner(
                min_resource=section.min_validations,
                max_resource=max(most_validations, section.min_validations),
                reduction_factor=section.reduction_factor,
            )
        case _:
            return pruners.NopPruner()
