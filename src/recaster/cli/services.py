"""Local services: a Prefect server, a worker, an MLflow server, all on loopback, each with a record.

    HOME/services/prefect.json   {"pid": 4711, "started": 1764000000.1, "address": "http://127.0.0.1:43211"}

A record names a process by id and start time, so that a reused id is never signalled.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil

from recaster.core.errors import ServiceError
from recaster.core.files import read_json, write_json
from recaster.core.settings import Settings, ensure_home

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_PROBE_SECONDS = 5.0
POOL = "recaster"


def ensure_prefect(settings: Settings) -> str:
    """The API address of a Prefect server that answers: the configured one, or a local one.

    Raises:
        ServiceError: the configured server does not answer, or the local one does not start.
    """
    api_url = begin_prefect(settings)[0]
    await_prefect(settings, api_url)
    return api_url


def begin_prefect(settings: Settings) -> tuple[str, bool]:
    """The API address of a server that need not answer yet, and whether it is being started.

    A local one takes seconds to come up, in which a cast has other things to do.

    Raises:
        ServiceError: the configured server does not answer.
    """
    if settings.prefect_api_url:
        if not answers(f"{settings.prefect_api_url.rstrip('/')}/health"):
            raise ServiceError(
                "Prefect did not answer.",
                where=settings.prefect_api_url,
                repair="start that server, or unset PREFECT_API_URL to use a local one",
            )
        return settings.prefect_api_url, False
    if address := find_service(settings, "prefect"):
        return f"{address}/api", False
    port = _free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    # The pages ask the address they are told, and else the default port.
    _start(settings, "prefect", command, address, {"PREFECT_SERVER_UI_API_URL": f"{address}/api"})
    return f"{address}/api", True


def await_prefect(settings: Settings, api_url: str) -> None:
    """Return when the server of `begin_prefect` answers.

    Raises:
        ServiceError: the local one does not start.
    """
    if not settings.prefect_api_url:
        _await(settings, "prefect", f"{api_url}/health")


def ensure_worker(settings: Settings, api_url: str) -> None:
    """Keep one worker on the process pool, which is there when this returns: deployments name it."""
    _ensure_pool(api_url)
    if find_service(settings, "worker") is None:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        _start(settings, "worker", command, POOL, {"PREFECT_API_URL": api_url})


def _ensure_pool(api_url: str) -> None:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with SyncPrefectClient(api_url) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            return


def ensure_mlflow(settings: Settings) -> str:
    """The address of MLflow's pages: the configured server, or a local one over the embedded store."""
    if settings.tracking_uri.startswith("http"):
        return settings.tracking_uri
    address = find_service(settings, "mlflow")
    if address is None:
        port = _free_port()
        artifacts = (settings.home / "mlflow" / "artifacts").as_uri()
        (settings.home / "mlflow" / "artifacts").mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.tracking_uri]
        command += [
            "--default-artifact-root",
            artifacts,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        address = _start(settings, "mlflow", command, f"http://127.0.0.1:{port}")
    _await(settings, "mlflow", f"{address}/health")
    return address


def list_services(settings: Settings) -> dict[str, str]:
    """Name and address of the local services that are alive."""
    names = [path.stem for path in sorted((settings.home / "services").glob("*.json"))]
    return {name: address for name in names if (address := find_service(settings, name))}


def find_service(settings: Settings, name: str) -> str | None:
    """The address of a recorded service whose process is alive, or None."""
    return read_json(_record(settings, name))["address"] if _process(settings, name) else None


def stop_services(settings: Settings) -> list[str]:
    """End exactly the recorded services and their children; return their names."""
    stopped = []
    for name in ("worker", "mlflow", "prefect"):
        process = _process(settings, name)
        if process:
            _end(process)
            stopped.append(name)
        _record(settings, name).unlink(missing_ok=True)
    return stopped


def _end(process: psutil.Process) -> None:
    family = [process, *process.children(recursive=True)]
    for signal_name in ("terminate", "kill"):
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(member, signal_name)()
        _, family = psutil.wait_procs(family, timeout=_STOP_SECONDS)
        if not family:
            return


def _record(settings: Settings, name: str) -> Path:
    return settings.home / "services" / f"{name}.json"


def _process(settings: Settings, name: str) -> psutil.Process | None:
    path = _record(settings, name)
    if not path.exists():
        return None
    record = read_json(path)
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if same else None


def _start(
    settings: Settings, name: str, command: list[str], address: str, environment: dict[str, str] | None = None
) -> str:
    ensure_home(settings)
    log = settings.home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # uvicorn and prefect are run by name from PATH by the servers themselves.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    variables = {
        **os.environ,
        "PATH": path,
        "PREFECT_HOME": str(settings.home / "prefect"),
        "RECASTER_HOME": str(settings.home),
        **(environment or {}),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=settings.project,
            env=variables,
            start_new_session=True,
        )
    started = psutil.Process(process.pid).create_time()
    write_json(_record(settings, name), {"pid": process.pid, "started": started, "address": address})
    return address


def _await(settings: Settings, name: str, health: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers(health):
        if _process(settings, name) is None or time.monotonic() > deadline:
            raise ServiceError(
                f"The local {name} server did not start.",
                where=health,
                repair=f"read {settings.home / 'logs' / (name + '.log')}, then `recaster down` and try again",
            )
        time.sleep(0.2)


def answers(url: str) -> bool:
    """Whether a service answers at `url` with 200 in time."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as response:  # noqa: S310 - our own or a configured server
            return bool(response.status == 200)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
