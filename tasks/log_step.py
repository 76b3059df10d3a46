"""Say in a task run's log that its step begins, and how it ended.

train_model   begins
train_model   done in 7.4 s: train/9d1c…
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from prefect.logging import get_run_logger

from recaster.core.steps import StepResult

P = ParamSpec("P")
R = TypeVar("R", bound=StepResult | None)


def logged(step: Callable[P, R]) -> Callable[P, R]:
    """`step` with its beginning and its end in the log of the task run that calls it."""

    @wraps(step)
    def told(*arguments: P.args, **keywords: P.kwargs) -> R:
        log = get_run_logger()
        log.info("%s begins", step.__name__)
        result = step(*arguments, **keywords)
        if result is None:
            log.info("%s has nothing to do", step.__name__)
        elif result.reused:
            log.info("%s found finished: %s", step.__name__, result.ref)
        else:
            log.info("%s done in %.1f s: %s", step.__name__, result.seconds, result.ref)
        return result

    return told
