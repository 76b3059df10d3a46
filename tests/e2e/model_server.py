"""MLflow's own model server over a registered version, for the body of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.faults.processes import await_true, free_port, signal_family

Ask = Callable[[dict[str, Any]], Any]
"""From the body of a request to the predictions."""


@contextmanager
def serve_model(project: Path, model: str, folder: Path) -> Iterator[Ask]:
    """`mlflow models serve -m models:/…` over the project's own store, in `folder`."""
    port = free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    uri = f"sqlite:///{project}/.recaster/mlflow/mlflow.db"
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "models", "serve", "-m", model),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
        ],
        cwd=folder,
        env={**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": uri},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, "the model server ended"
        try:
            return bool(urllib.request.urlopen(f"{address}/ping", timeout=2).status == 200)
        except OSError:
            return False

    def ask(body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)["predictions"]

    try:
        await_true(answers, seconds=120, what="the model server answers")
        yield ask
    finally:
        signal_family(psutil.Process(server.pid), 15)
        server.wait(30)
