"""Which epoch is best and when to stop, as a function of the validations so far: no state to lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_HIGHER_IS_BETTER = {"accuracy"}

Validation = Mapping[str, Any]
"""A journal's record of kind `validation`: step, loss, accuracy."""


def find_best(validations: Sequence[Validation], metric: str) -> Validation:
    """The first of the best; a value that is not finite is never better."""
    best = validations[0]
    for record in validations[1:]:
        if _improvement(record, best, metric) > 0:
            best = record
    return best


def should_stop(validations: Sequence[Validation], section: Mapping[str, Any]) -> bool:
    """Whether the newest `patience_epochs` validations brought no improvement that counts."""
    best, since = validations[0], 0
    for record in validations[1:]:
        if _improvement(record, best, section["metric"]) > section["min_improvement"]:
            best, since = record, 0
        else:
            since += 1
    return since >= int(section["patience_epochs"])


def _improvement(record: Validation, over: Validation, metric: str) -> float:
    gain = float(record[metric]) - float(over[metric])
    return gain if metric in _HIGHER_IS_BETTER else -gain
