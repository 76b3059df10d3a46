"""The recipe's `search` section: which values are tried, and how."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field, model_validator

from recaster.recipe.section import Section, Seed


class SearchParameter(Section):
    """The values that one key may take: a range, or choices."""

    low: int | float | None = None
    """Smallest value, included."""
    high: int | float | None = None
    """Largest value, included."""
    step: int | float | None = Field(default=None, gt=0)
    """Distance of neighbouring values; without it a range of integers has all, of floats any."""
    log: bool = False
    """Sample the range on a logarithmic scale."""
    choices: list[bool | int | float | str | None] | None = Field(default=None, min_length=1)
    """Values to choose from, without an order."""

    @model_validator(mode="after")
    def _one_kind(self) -> SearchParameter:
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("choices stand alone, without low, high, step or log")
            if len(set(map(repr, self.choices))) != len(self.choices):
                raise ValueError(f"choices repeat: {self.choices}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, not at {self.low}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range has no step")
        if self.step is not None and self.last != self.high:
            raise ValueError(f"high ({self.high}) is not reached in steps of {self.step}; use {self.last:g}")
        return self

    @property
    def last(self) -> float:
        """The largest value that steps from `low` reach."""
        low, high, step = (Decimal(str(value or 0)) for value in (self.low, self.high, self.step))
        return float(low + (high - low) // step * step)


class Pruner(Section):
    """When a trial that lags behind the others is stopped."""

    name: Literal["none", "median", "successive-halving", "hyperband"] = "none"
    """median: worse than the median of the others after the same number of validations. The others keep
    the best share after 1, `reduction_factor`, its square, … times `min_validations`."""
    startup_trials: int = Field(default=5, ge=1)
    """Of median: trials that end unpruned before any is stopped."""
    min_validations: int = Field(default=1, ge=1)
    """Of all: validations that every trial has before it may be stopped."""
    reduction_factor: int = Field(default=3, ge=2)
    """Of successive-halving and hyperband: one in this many goes on."""

    @model_validator(mode="after")
    def _options_apply(self) -> Pruner:
        halving = ("successive-halving", "hyperband")
        owners = {
            "startup_trials": ("median",),
            "min_validations": ("median", *halving),
            "reduction_factor": halving,
        }
        for option, names in owners.items():
            if option in self.model_fields_set and self.name not in names:
                raise ValueError(
                    f"{option} belongs to pruner {' or '.join(names)}, not {self.name}; remove it"
                )
        return self


class SearchSection(Section):
    """A search for hyper-parameters; `recaster search` reads it, an ordinary cast does not."""

    parameters: dict[str, SearchParameter] = Field(min_length=1)
    """The values to try by dotted key of this recipe, such as `train.optimizer.learning_rate`."""
    metric: Literal["validation_loss", "validation_accuracy"]
    """Of the validation split, at the trained model; the held-out split is never looked at."""
    trials: int = Field(ge=1, le=100_000)
    """Complete, pruned and failed ones together."""
    seed: Seed
    """Of the values that are tried; training keeps its own."""
    sampler: Literal["tpe", "random", "grid", "qmc", "cmaes", "gp"] = "tpe"
    """tpe: tree-structured Parzen estimator; grid: every combination once, in random order; qmc: a scrambled
    Sobol sequence; cmaes: covariance matrix adaptation; gp: Gaussian process."""
    startup_trials: int | None = Field(default=None, ge=1)
    """Random trials before tpe, gp or cmaes learn from those found; without it 10, 10 and 1."""
    pruner: Pruner = Pruner()
    parallel: int = Field(default=1, ge=1, le=64)
    """Trials that train at once; each has all ranks of `distributed`."""
    timeout_seconds: float | None = Field(default=None, gt=0)
    """No trial begins later than this after the command did; those that train are brought to their end."""

    @model_validator(mode="after")
    def _sampler_fits(self) -> SearchSection:
        if self.startup_trials is not None and self.sampler not in ("tpe", "cmaes", "gp"):
            raise ValueError(f"startup_trials belongs to tpe, cmaes and gp, not {self.sampler}; remove it")
        ranges = [name for name, parameter in self.parameters.items() if parameter.choices is None]
        if self.sampler == "cmaes" and len(ranges) < 2:
            raise ValueError("sampler cmaes needs two ranges or more; use tpe")
        return self

    @property
    def lower_is_better(self) -> bool:
        """The metric's direction."""
        return self.metric == "validation_loss"
