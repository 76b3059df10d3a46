"""What runs without people: the schedule on a worker, and MLflow's own model server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import ROOT, SMALL, Command
from tests.e2e.model_server import serve_model
from tests.faults.processes import RUN, await_true, start_cast

_OPEN_GATE = ("gate.bars.0.min=0.05", "gate.bars.1.max=10.0")


@pytest.mark.timeout(300)
def test_the_worker_carries_out_deployments(command: Command, project: Path) -> None:
    """Those of prefect.yaml when asked to, and those of `recaster schedule` as their cron line says."""
    shutil.copy(ROOT / "prefect.yaml", project)
    api_url = json.loads(command("up", "--json").stdout)["prefect"]
    assert "successfully created" in _prefect(project, api_url, "--no-prompt", "deploy", "--all")
    overrides = [*SMALL, *_OPEN_GATE]
    told = json.dumps(overrides)
    _prefect(
        project, api_url, "deployment", "run", "recast/digits", "--watch", "--param", f"overrides={told}"
    )
    casts = project / ".recaster" / "casts"
    assert len(list(casts.glob("*.json"))) == 1, "the worker's cast"

    # Every minute, and with another seed, so that there is something to do.
    changed = [*overrides, "train.seed=8", "schedule.cron='* * * * *'"]
    arguments = ("recipes/digits.yaml", *(part for text in changed for part in ("--set", text)), "--json")
    scheduled = command("schedule", *arguments)
    assert scheduled.returncode == 0, scheduled.stderr
    assert json.loads(scheduled.stdout)["deployment"] == "recast/digits"
    await_true(lambda: len(list(casts.glob("*.json"))) == 2, seconds=200, what="the worker's cast by cron")
    again = command("run", *arguments)
    assert "Nothing changed" in again.stderr, again.stderr
    _check_stopped(command, project)


def _prefect(project: Path, api_url: str, *arguments: str) -> str:
    """Prefect's own command, as a user would call it in the project."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=project,
        env={**os.environ, "PREFECT_API_URL": api_url},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _check_stopped(command: Command, project: Path) -> None:
    assert set(json.loads(command("status", "--json").stdout)["services"]) == {"prefect", "worker"}
    services = (project / ".recaster" / "services").glob("*.json")
    started = [psutil.Process(json.loads(path.read_text())["pid"]) for path in services]
    assert set(json.loads(command("down", "--json").stdout)["stopped"]) == {"prefect", "worker"}
    assert not any(process.is_running() and process.status() != "zombie" for process in started)


@pytest.mark.timeout(300)
def test_mlflow_serves_the_champion(project: Path, tmp_path: Path) -> None:
    """`mlflow models serve -m models:/digits@champion` answers as the evaluation did."""
    cast = start_cast(project, *SMALL, *_OPEN_GATE, code=RUN)
    _, told = cast.communicate(timeout=200)
    assert cast.returncode == 0, told
    steps = project / ".recaster" / "steps"
    images = (
        np.load(next((steps / "prepare").glob("*/test.images.npy"))).transpose(0, 2, 3, 1).astype(np.float32)
    )
    wanted = np.load(next((steps / "evaluate").glob("*/predictions.npy")))
    with serve_model(project, "models:/digits@champion", tmp_path) as ask:
        rows = ask({"instances": images[:50].tolist()})
    told = np.array([[row[f"p_{label}"] for label in range(10)] for row in rows])
    np.testing.assert_allclose(told, wanted[:50], atol=1e-6)
    assert [row["label"] for row in rows] == [str(number) for number in wanted[:50].argmax(1)]
