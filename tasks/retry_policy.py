"""How often a task tries again: only for trouble outside of us; a diverged run diverges again."""

from __future__ import annotations

from typing import Any

from recaster.core.errors import RecasterError

RETRY_DELAYS_SECONDS: list[float] = [1, 5, 15]


def worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """True when the task's error says that a retry may help."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, RecasterError) and error.retryable
