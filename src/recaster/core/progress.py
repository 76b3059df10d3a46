"""What long work says while it runs; who listens decides how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One moment of training."""

    step: int
    """Optimizer steps completed, from 1."""
    steps: int
    """Steps in the whole run."""
    loss: float
    """Mean loss a target, nats."""
    samples_per_second: float
    seconds_left: float


class Reporter(Protocol):
    """Listens to a cast."""

    def say(self, message: str) -> None:
        """Take one line for people."""

    def advance(self, progress: Progress) -> None:
        """Take a moment of training; called as often as the journal grows."""


class SilentReporter:
    """Listens and shows nothing."""

    def say(self, message: str) -> None:
        """Ignore the line."""

    def advance(self, progress: Progress) -> None:
        """Ignore the moment."""
