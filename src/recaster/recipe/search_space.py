"""The keys that a search may vary, and whether each of their values makes a recipe.

train.optimizer.learning_rate: {low: 1e-4, high: 1e-1, log: true}   →   a float from 0.0001 to 0.1
model.width: {low: 8, high: 64, step: 4}                            →   8, 12, … 64
train.optimizer.name: {choices: [adamw, sgd]}                       →   adamw or sgd
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel

from recaster.recipe.schema import Recipe
from recaster.recipe.search import SearchParameter, SearchSection

SEARCHABLE = ("model", "train", "distributed", "communication")
"""The sections that training reads; all trials share one prepared data set."""
_SCALES = ("train.loss.name", "train.loss.gamma")
"""What the validation loss itself is made of: label smoothing is left out of it."""
_MOST_CHECKED = 1000
_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z][\w./-]*", re.IGNORECASE)
"""Text that YAML reads as itself without quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """Why a searched key cannot be varied as the recipe says."""

    key: str
    what: str
    value: object
    repair: str


def find_misfit(search: SearchSection, try_value: Callable[[str, Any], str]) -> Misfit | None:
    """The first parameter that the schema does not know, or whose values it refuses.

    Args:
        try_value: says why the recipe with this value at this key is refused; empty when it is not.
    """
    for key, parameter in search.parameters.items():
        misfit = _find_key_misfit(key, parameter, search) or _find_value_misfit(key, parameter, try_value)
        if misfit:
            return misfit
    return None


def searchable_keys() -> list[str]:
    """Every dotted key that a search may vary, in the schema's order."""
    return [key for section in SEARCHABLE for key in _leaves(_sections(Recipe, section), f"{section}.")]


def is_integral(key: str) -> bool:
    """Whether the schema takes whole numbers alone at `key`."""
    return float not in _kinds(key)


def list_values(key: str, parameter: SearchParameter) -> list[Any]:
    """All values of a parameter, smallest first; empty when they cannot be counted."""
    if parameter.choices is not None:
        return list(parameter.choices)
    low, high = parameter.low or 0, parameter.high or 0
    if is_integral(key):
        return list(range(int(low), int(high) + 1, int(parameter.step or 1)))
    if parameter.step is None:
        return []
    count = round((high - low) / parameter.step)
    return [clean_number(low + number * parameter.step) for number in range(count + 1)]


def clean_number(value: float) -> float:
    """`value` to six significant digits, so that people can type what a search found."""
    return float(f"{value:.6g}")


def to_override(key: str, value: Any) -> str:
    """`section.key=value`, as `--set` takes it."""
    plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    return f"{key}={value if plain else json.dumps(value)}"


def _find_key_misfit(key: str, parameter: SearchParameter, search: SearchSection) -> Misfit | None:
    known = searchable_keys()
    if key not in known:
        return _unknown(key, known)
    if key in _SCALES and search.metric == "validation_loss":
        return Misfit(
            key=key,
            what="Validation losses of different kinds cannot be compared.",
            value=key,
            repair="use metric: validation_accuracy",
        )
    return None if parameter.choices is not None else _find_range_misfit(key, parameter, search)


def _find_range_misfit(key: str, parameter: SearchParameter, search: SearchSection) -> Misfit | None:
    if not _kinds(key) & {int, float}:
        return Misfit(
            key=key, what="This key takes no numbers.", value=None, repair="give choices in place of a range"
        )
    numbers = [number for number in (parameter.low, parameter.high, parameter.step) if number is not None]
    if is_integral(key) and not all(isinstance(number, int) for number in numbers):
        return Misfit(
            key=key, what="This key takes whole numbers alone.", value=numbers, repair="use whole numbers"
        )
    if search.sampler == "grid" and not list_values(key, parameter):
        return Misfit(
            key=key,
            what="A grid needs countable values, and this range has none.",
            value=[parameter.low, parameter.high],
            repair="add a step, give choices, or use another sampler",
        )
    return None


def _unknown(key: str, known: list[str]) -> Misfit:
    section = key.split(".", maxsplit=1)[0]
    if section in Recipe.model_fields and section not in SEARCHABLE:
        return Misfit(
            key=key,
            what="A search varies what training reads, on one prepared data set; not this section.",
            value=key,
            repair=f"use keys of {', '.join(SEARCHABLE)}",
        )
    inside = [other for other in known if other.startswith(f"{key}.")]
    near = inside or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "remove it"
    here = inside or [other for other in known if other.split(".")[0] == section] or known
    return Misfit(
        key=key,
        what="A search names a key that does not exist.",
        value=key,
        repair=f"{hint} Known here: {', '.join(here)}",
    )


def _find_value_misfit(
    key: str, parameter: SearchParameter, try_value: Callable[[str, Any], str]
) -> Misfit | None:
    for value in _to_check(key, parameter):
        if problem := try_value(key, value):
            return Misfit(
                key=key,
                what=f"A value of the search is refused: {problem}.",
                value=value,
                repair="narrow the range or the choices (a step skips values between)",
            )
    return None


def _to_check(key: str, parameter: SearchParameter) -> list[Any]:
    """All values where they are few, else the ends and the neighbours of the lower one."""
    low, high = parameter.low, parameter.high
    if low is None or high is None:
        return list_values(key, parameter)
    if is_integral(key):
        step = int(parameter.step or 1)
        values = range(int(low), int(high) + 1, step)
        return list(values) if len(values) <= _MOST_CHECKED else [low, high, *values[:_MOST_CHECKED]]
    return [low, high]


def _kinds(key: str) -> set[Any]:
    """The plain types that the schema takes at `key`."""
    *sections, last = key.split(".")
    models: list[type[BaseModel]] = [Recipe]
    for section in sections:
        models = [found for model in models for found in _sections(model, section)]
    kinds: set[Any] = set()
    for model in models:
        if last in model.model_fields:
            annotation = model.model_fields[last].annotation
            kinds.update(get_args(annotation) or [annotation])
    return {kind if isinstance(kind, type) else type(kind) for kind in kinds} - {NoneType}


def _leaves(models: list[type[BaseModel]], prefix: str) -> Iterator[str]:
    for model in models:
        for name in model.model_fields:
            if inner := _sections(model, name):
                yield from _leaves(inner, f"{prefix}{name}.")
            else:
                yield prefix + name


def _sections(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    """The schemas of the section `name` of `model`; none when it is a plain value."""
    if name not in model.model_fields:
        return []
    annotation = model.model_fields[name].annotation
    return [
        kind
        for kind in (annotation, *get_args(annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
