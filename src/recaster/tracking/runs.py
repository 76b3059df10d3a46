"""MLflow runs: found again by fingerprint, fed from the journal, never waited for without bound."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.errors import RegistryError, ServiceError, StorageError
from recaster.core.files import disk_full, storage_errors
from recaster.core.locks import hold_lock
from recaster.core.settings import Settings, quiet_dependencies

if TYPE_CHECKING:
    from mlflow import MlflowClient

FINGERPRINT = "recaster.fingerprint"
_ADDRESSES = threading.Lock()
_ADDRESS_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
_PROBE_SECONDS = 5.0
_BATCH, _PARAM_BATCH, _LONGEST_PARAM = 1000, 100, 6000  # MLflow's own limits
_PASSING = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "DEADLINE_EXCEEDED",
    "IO_ERROR",
}
"""Error codes of a server that may answer later; MLflow's client reports a lost connection as internal."""
_REPAIRS = {
    "UNAUTHENTICATED": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN)",
    "PERMISSION_DENIED": "ask the server's administrator for the right to write this model",
}
_BACK_OFF_SECONDS = 10.0
_METRICS = {
    "train": (
        "loss",
        "learning_rate",
        "gradient_norm",
        "samples_per_second",
        "discriminator_loss",  # of the two players of a GAN
        "generator_loss",
    ),
    "validation": ("loss", "accuracy"),
}


@contextmanager
def service_errors(uri: str) -> Iterator[None]:
    """Turn MLflow's trouble into a ServiceError when a retry may help, else into a RegistryError."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (RequestException, SQLAlchemyError) as error:
        raise _no_room(uri, error) or _unreachable(uri, error) from error
    except MlflowException as error:
        if no_room := _no_room(uri, error):
            raise no_room from error
        if error.error_code in _PASSING:
            raise _unreachable(uri, error) from error
        raise RegistryError(
            "MLflow refused what it was asked.",
            where=uri,
            value=f"{error.error_code}: {_first_line(error)}",
            repair=_REPAIRS.get(error.error_code, "correct that in MLflow (`recaster ui` shows it)")
            + "; then run the same command",
        ) from error


def _no_room(uri: str, error: BaseException) -> StorageError | None:
    """SQLite's word for a full disk under the embedded store, which no server's answer would contain."""
    full = uri.startswith("sqlite:") and "disk is full" in str(error)
    return disk_full(Path(uri.removeprefix("sqlite:///"))) if full else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _unreachable(uri: str, error: BaseException) -> ServiceError:
    return ServiceError(
        "MLflow did not answer; what was trained so far is kept.",
        where=uri,
        value=_first_line(error),
        repair="start the server, or correct or unset MLFLOW_TRACKING_URI; then run the same command",
    )


def open_tracking(settings: Settings) -> MlflowClient:
    """A client of the tracking store and registry, proved to answer.

    Raises:
        ServiceError: a server refuses, hangs for 5 s, or answers something else than MLflow.
    """
    quiet_dependencies()
    uri = settings.tracking_uri
    if uri.startswith("http"):
        _probe(uri)
    elif settings.local_tracking:
        _ensure_store(settings)
    import mlflow

    # Trials of a search open it at once, and one would take the other's address for its project's own.
    with service_errors(uri), _ADDRESSES:
        before = {name: os.environ.get(name) for name in _ADDRESS_VARIABLES}
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        # MLflow writes its addresses into the environment, where the next project would take them up.
        for name in (name for name, value in before.items() if value is None):
            os.environ.pop(name, None)
        return mlflow.MlflowClient(uri, uri)


def _ensure_store(settings: Settings) -> None:
    """Make the embedded store whole or not at all.

    MLflow writes its schema in many small migrations; a store that was cut off among them is
    refused for ever. So it is made under another name, then renamed.
    """
    store, artifacts = (
        Path(settings.tracking_uri.removeprefix("sqlite:///")),
        settings.home / "mlflow" / "artifacts",
    )
    with storage_errors(settings.home):
        artifacts.mkdir(parents=True, exist_ok=True)
        store.parent.mkdir(parents=True, exist_ok=True)
    if store.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with hold_lock(settings.home / "locks" / "mlflow.lock", name="the MLflow store", wait_seconds=120.0):
        if store.exists():
            return
        work = store.with_name(f".{store.name}.work")
        work.unlink(missing_ok=True)
        with service_errors(settings.tracking_uri), storage_errors(settings.home):
            SqlAlchemyStore(f"sqlite:///{work}", artifacts.as_uri()).engine.dispose()  # type: ignore[no-untyped-call]
            work.replace(store)


def _probe(uri: str) -> None:
    """MLflow's own client would try for minutes; one question tells whether it is worth it."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PROBE_SECONDS):  # noqa: S310 - the configured server
            pass
    except urllib.error.HTTPError as error:
        if error.code not in {401, 403}:  # it answers, and will say itself what it wants
            raise _unreachable(uri, error) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _unreachable(uri, error) from error


def ensure_run(
    client: MlflowClient,
    *,
    settings: Settings,
    experiment: str,
    name: str,
    fingerprint: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    data: Mapping[str, str] | None = None,
) -> str:
    """The id of the run with this fingerprint, made if it is not there; all calls may be repeated.

    Args:
        data: `version` and `source` of what the run trains on; None for a run above others.
    """
    from mlflow.entities import Dataset, DatasetInput, Param

    with service_errors(settings.tracking_uri):
        home = _ensure_experiment(client, settings, experiment)
        found = client.search_runs([home], f"tags.`{FINGERPRINT}` = '{fingerprint}'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            client.update_run(run_id, status="RUNNING")
            for key, value in tags.items():
                client.set_tag(run_id, key, value)
            # MLflow refuses another value, and a section that training does not read may have changed.
            params = {key: value for key, value in params.items() if key not in found[0].data.params}
        else:
            created = client.create_run(home, tags={FINGERPRINT: fingerprint, **tags}, run_name=name)
            run_id = str(created.info.run_id)
        entries = [Param(key, value[:_LONGEST_PARAM]) for key, value in params.items()]
        for start in range(0, len(entries), _PARAM_BATCH):
            client.log_batch(run_id, params=entries[start : start + _PARAM_BATCH])
        if data:
            source = json.dumps({"uri": data["source"]})
            kept = Dataset(name=experiment, digest=data["version"][:32], source_type="dvc", source=source)
            client.log_inputs(run_id, [DatasetInput(dataset=kept, tags=[])])
    return run_id


def find_run(client: MlflowClient, *, uri: str, experiment: str, fingerprint: str) -> str | None:
    """The id of the run with this fingerprint, or None."""
    with service_errors(uri):
        home = client.get_experiment_by_name(experiment)
        if home is None:
            return None
        found = client.search_runs(
            [home.experiment_id], f"tags.`{FINGERPRINT}` = '{fingerprint}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None


def tag_run(client: MlflowClient, run_id: str, *, uri: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    with service_errors(uri):
        for key, value in tags.items():
            client.set_tag(run_id, key, value)


def close_search_run(
    client: MlflowClient,
    run_id: str,
    *,
    uri: str,
    status: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    step: int,
    files: Iterable[Path],
) -> None:
    """End a search's parent run with what it found; all calls may be repeated.

    Args:
        step: trials that ended so far, at which the metrics are logged.
    """
    from mlflow.entities import Metric

    with service_errors(uri):
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        moment, present = int(time.time() * 1000), client.get_run(run_id).data.metrics
        fresh = {name: value for name, value in metrics.items() if present.get(name) != value}
        client.log_batch(run_id, metrics=[Metric(name, value, moment, step) for name, value in fresh.items()])
        for file in files:
            client.log_artifact(run_id, str(file), "search")
        client.set_terminated(run_id, status)


def _ensure_experiment(client: MlflowClient, settings: Settings, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        raise RegistryError(
            "The model's MLflow experiment was deleted.",
            where=settings.tracking_uri,
            value=name,
            repair=f"`mlflow experiments restore -x {found.experiment_id}`, or rename the recipe",
        )
    if found:
        return str(found.experiment_id)
    artifacts = settings.home / "mlflow" / "artifacts" / name
    return str(
        client.create_experiment(
            name, artifact_location=artifacts.as_uri() if settings.local_tracking else None
        )
    )


def log_results(
    client: MlflowClient,
    run_id: str,
    *,
    uri: str,
    metrics: Mapping[str, float],
    files: Iterable[Path],
    description: str,
) -> None:
    """Log held-out metrics (as `test/…`), files and what the run's page begins with."""
    from mlflow.entities import Metric

    with service_errors(uri):
        moment = int(time.time() * 1000)
        present = client.get_run(run_id).data.metrics
        fresh = {
            f"test/{name}": value for name, value in metrics.items() if present.get(f"test/{name}") != value
        }
        client.log_batch(run_id, metrics=[Metric(name, value, moment, 0) for name, value in fresh.items()])
        client.set_tag(run_id, "mlflow.note.content", description)
        for file in files:
            client.log_artifact(run_id, str(file), "evaluation")


class JournalForwarder:
    """Sends journal records to MLflow in batches: none twice, none lost, whatever dies in between.

    Only records that a checkpoint has made final are sent during training; what MLflow already
    has is asked of MLflow, so a killed parent needs no memory of its own.
    """

    def __init__(
        self, settings: Settings, run_id: str, journal: Path, *, say: Callable[[str], None] | None = None
    ) -> None:
        self._settings, self._run_id, self._journal, self._say = settings, run_id, journal, say
        self._sent: dict[str, int] | None = None
        self._quiet_until = 0.0
        self._in_trouble = False

    def forward(self, durable_step: int) -> None:
        """Send what is new up to `durable_step`; trouble is told once, and the records are sent later."""
        if time.monotonic() < self._quiet_until:
            return
        try:
            self._send(durable_step)
        except Exception as error:  # noqa: BLE001 - whatever a tracking store does, it must not stop training
            if self._say and not self._in_trouble:
                self._say(f"warning: training goes on without MLflow for now ({_first_line(error)})")
            self._in_trouble = True
            self._quiet_until = time.monotonic() + _BACK_OFF_SECONDS
        else:
            if self._say and self._in_trouble:
                self._say("MLflow answers again; it has the journal up to the newest checkpoint")
            self._in_trouble = False

    def finish(self, status: str) -> None:
        """Send all that is left and end the run with `status` (`FINISHED`, `FAILED` or `KILLED`).

        Raises:
            ServiceError: MLflow does not answer; the journal stays, and the next call sends it.
        """
        self._send(None)
        with service_errors(self._settings.tracking_uri):
            open_tracking(self._settings).set_terminated(self._run_id, status)

    def _send(self, durable_step: int | None) -> None:
        client = open_tracking(self._settings)
        with service_errors(self._settings.tracking_uri):
            if self._sent is None:
                self._sent = {kind: self._last_step(client, kind) for kind in _METRICS}
            fresh = [
                record
                for record in _read_records(self._journal)
                if record["step"] > self._sent[record["kind"]]
                and (durable_step is None or record["step"] <= durable_step)
            ]
            size = _BATCH // max(len(names) for names in _METRICS.values())
            for start in range(0, len(fresh), size):
                self._send_batch(client, fresh[start : start + size], self._sent)

    def _send_batch(self, client: MlflowClient, records: list[dict[str, Any]], sent: dict[str, int]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(f"{record['kind']}/{name}", record[name], int(record["time"] * 1000), record["step"])
            for record in records
            for name in _METRICS[record["kind"]]
            if name in record  # each kind of training has some of them
        ]
        client.log_batch(self._run_id, metrics=metrics)  # one transaction: all of a batch or nothing
        for record in records:
            sent[record["kind"]] = record["step"]

    def _last_step(self, client: MlflowClient, kind: str) -> int:
        history = client.get_metric_history(self._run_id, f"{kind}/loss")
        return max((entry.step for entry in history), default=0)


def _read_records(journal: Path) -> list[dict[str, Any]]:
    """The whole lines of the journal; a half-written last one is left for later."""
    if not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_bytes().split(b"\n")[:-1]]
