"""Show a cast's progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from recaster.core.progress import Progress

_LINE_SECONDS = 2.0


def progress_line(progress: Progress) -> str:
    """One moment of training for people."""
    return (
        f"train: step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
        f"{progress.samples_per_second:,.0f} samples/s  {progress.seconds_left:.0f} s left"
    )


class TerminalReporter:
    """Writes to standard error."""

    def __init__(self) -> None:
        self._shown = 0.0

    def say(self, message: str) -> None:
        """Write one line."""
        sys.stderr.write(f"{message}\n")

    def advance(self, progress: Progress) -> None:
        """Redraw the bar, or write a line every few seconds."""
        text = progress_line(progress)
        last = progress.step == progress.steps
        if sys.stderr.isatty():
            filled = round(30 * progress.step / progress.steps)
            sys.stderr.write(f"\r\x1b[K{'━' * filled}{'╌' * (30 - filled)} {text}" + ("\n" if last else ""))
            sys.stderr.flush()
        elif last or time.monotonic() - self._shown > _LINE_SECONDS:
            self._shown = time.monotonic()
            sys.stderr.write(f"{text}\n")
