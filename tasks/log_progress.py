"""Keep a cast's progress in Prefect: what is said becomes log lines of the run, training an artifact."""

from __future__ import annotations

import logging
import time
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import MissingContextError, PrefectException
from prefect.logging import get_run_logger
from prefect.logging.loggers import LoggingAdapter

from recaster.core.progress import Progress
from tasks.show_progress import TerminalReporter, progress_line

_ARTIFACT_SECONDS = 2.0
_LOG_SECONDS = 20.0
"""Between two lines of training in the log, which is kept."""


class PrefectReporter(TerminalReporter):
    """Also tells the run's log and keeps a progress artifact; Prefect's trouble never stops training.

    Made within a flow run, whose log takes what is said outside of any task.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key, self._sent, self._lost = key, 0.0, False
        self._logged = -_LOG_SECONDS
        self._flow_log = get_run_logger()
        self._artifact: UUID | None = None

    def say(self, message: str) -> None:
        """Write one line, and log it; a warning as a warning."""
        super().say(message)
        text = message.removeprefix("warning: ")
        self._log().log(logging.INFO if text == message else logging.WARNING, "%s", text)

    def advance(self, progress: Progress) -> None:
        """Show; log a line every 20 seconds; update the artifact at most every two."""
        super().advance(progress)
        last = progress.step == progress.steps
        if last or time.monotonic() - self._logged > _LOG_SECONDS:
            self._logged = time.monotonic()
            self._log().info("%s", progress_line(progress))
        if not self._lost and (last or time.monotonic() - self._sent > _ARTIFACT_SECONDS):
            self._sent = time.monotonic()
            self._update_artifact(100.0 * progress.step / progress.steps)

    def _log(self) -> logging.Logger | LoggingAdapter:
        try:
            return get_run_logger()
        except MissingContextError:  # the thread that sends the journal belongs to no run
            return self._flow_log

    def _update_artifact(self, percent: float) -> None:
        try:
            if self._artifact is None:
                made = create_progress_artifact(progress=percent, key=f"{self._key}-training")
                self._artifact = made if isinstance(made, UUID) else None
            else:
                update_progress_artifact(self._artifact, progress=percent)
        except (httpx.HTTPError, PrefectException, OSError) as error:
            self._lost = True
            self.say(f"warning: Prefect no longer takes progress ({type(error).__name__}); training goes on")
