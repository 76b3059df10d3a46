"""Show a cast's progress: a bar on a terminal, plain lines elsewhere, an artifact in Prefect."""

from __future__ import annotations

import sys
import time
from uuid import UUID

from recaster.core.progress import Progress

_LINE_SECONDS = 2.0


class TerminalReporter:
    """Writes to standard error."""

    def __init__(self) -> None:
        self._shown = 0.0

    def say(self, message: str) -> None:
        """Write one line."""
        sys.stderr.write(f"{message}\n")

    def advance(self, progress: Progress) -> None:
        """Redraw the bar, or write a line every few seconds."""
        text = (
            f"train: step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
            f"{progress.samples_per_second:,.0f} samples/s  {progress.seconds_left:.0f} s left"
        )
        last = progress.step == progress.steps
        if sys.stderr.isatty():
            filled = round(30 * progress.step / progress.steps)
            sys.stderr.write(f"\r\x1b[K{'━' * filled}{'╌' * (30 - filled)} {text}" + ("\n" if last else ""))
            sys.stderr.flush()
        elif last or time.monotonic() - self._shown > _LINE_SECONDS:
            self._shown = time.monotonic()
            self.say(text)


class PrefectReporter(TerminalReporter):
    """Also keeps a progress artifact on the task run; Prefect's trouble never stops training."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key, self._sent, self._lost = key, 0.0, False
        self._artifact: UUID | None = None

    def advance(self, progress: Progress) -> None:
        """Show, and update the artifact at most every two seconds."""
        super().advance(progress)
        if self._lost or (time.monotonic() - self._sent < _LINE_SECONDS and progress.step != progress.steps):
            return
        self._sent = time.monotonic()
        import httpx
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.exceptions import PrefectException

        share = 100.0 * progress.step / progress.steps
        try:
            if self._artifact is None:
                made = create_progress_artifact(progress=share, key=f"{self._key}-training")
                self._artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._artifact, progress=share)
        except (httpx.HTTPError, PrefectException, OSError) as error:
            self._lost = True
            self.say(f"warning: Prefect no longer takes progress ({type(error).__name__}); training goes on")
