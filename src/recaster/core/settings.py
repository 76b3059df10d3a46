"""The one door for the environment: where things live and which servers are used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recaster.core.errors import RecipeError, StorageError
from recaster.core.files import storage_errors

_QUIET = {
    # No dependency phones home, and none waits minutes for a server that is not there.
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_ENABLE_DB_SDK": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "1",
    "PREFECT_API_REQUEST_TIMEOUT": "10",
    # A remote store that is not ours must not be asked for an update of anything.
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The bars of transformers would stand between our lines.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    # Progress bars and hints of libraries would bury the cast's own lines.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Standard output belongs to `--json`.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_OFFLINE = ("RECASTER_OFFLINE", "HF_HUB_OFFLINE")
_PROJECT_MARKS = ("dvc.yaml", ".dvc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where one project keeps its work and which servers it talks to."""

    project: Path
    """Folder with `dvc.yaml`: data and recipes are named relative to it."""
    home: Path
    """Everything local lives here: finished steps, the MLflow store, logs, locks."""
    tracking_uri: str
    """MLflow tracking and registry."""
    prefect_api_url: str | None
    """None: a local Prefect server is kept under `home`."""
    watts: float | None
    """What this host takes while it trains, where somebody measured it."""
    offline: bool
    """True where nothing may be fetched: what is not cached is an error at once."""

    @property
    def steps(self) -> Path:
        """Finished and unfinished steps by fingerprint."""
        return self.home / "steps"

    @property
    def downloads(self) -> Path:
        """What model hubs and package indexes gave, as it came: shared by all casts."""
        return self.home / "downloads"

    @property
    def local_tracking(self) -> bool:
        """True where MLflow is the embedded store under `home`."""
        return self.tracking_uri.startswith("sqlite:")


def find_settings(start: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings for a file or folder `start`, from the environment and the nearest project.

    Reads RECASTER_HOME, MLFLOW_TRACKING_URI, PREFECT_API_URL, RECASTER_OFFLINE, HF_HUB_OFFLINE and
    RECASTER_WATTS. What only one library reads (HF_ENDPOINT, HF_TOKEN, pip's PIP_…, proxies) is left to
    that library.

    Raises:
        RecipeError: RECASTER_WATTS is not a number.
    """
    variables = os.environ if environment is None else environment
    start = start.resolve()
    project = _find_project(start if start.is_dir() else start.parent)
    home = Path(variables.get("RECASTER_HOME") or project / ".recaster").resolve()
    return Settings(
        project=project,
        home=home,
        tracking_uri=variables.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home}/mlflow/mlflow.db",
        prefect_api_url=variables.get("PREFECT_API_URL") or None,
        offline=any(_is_on(variables.get(name, "")) for name in _OFFLINE),
        watts=_read_watts(variables.get("RECASTER_WATTS")),
    )


def _is_on(text: str) -> bool:
    return text.strip().lower() in {"1", "on", "yes", "true"}


def _read_watts(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise RecipeError(
            "This is not a number of watts.", where="RECASTER_WATTS", value=text, repair="such as 85"
        ) from None


def _find_project(folder: Path) -> Path:
    for candidate in (folder, *folder.parents):
        if any((candidate / mark).exists() for mark in _PROJECT_MARKS):
            return candidate
    return folder


def quiet_dependencies() -> None:
    """Switch the telemetry of all dependencies off and shorten their waits, unless already set."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def ensure_home(settings: Settings) -> None:
    """Create the home folder and prove that it can be written.

    Raises:
        StorageError: it cannot.
    """
    if settings.home.exists() and not settings.home.is_dir():
        raise StorageError(
            "RECASTER_HOME is not a folder.",
            where=str(settings.home),
            repair="set RECASTER_HOME to a folder",
        )
    with storage_errors(settings.home):
        settings.home.mkdir(parents=True, exist_ok=True)
        probe = settings.home / f".write-probe.{os.getpid()}"
        try:
            probe.write_bytes(b"0" * 4096)
        finally:
            probe.unlink(missing_ok=True)
