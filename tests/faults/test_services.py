"""MLflow and Prefect die or hang while a cast trains: training goes on, and nothing is lost or doubled."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import psutil
import pytest

from recaster.training.journal import read_journal
from tests.conftest import Command
from tests.faults.processes import (
    SLOW,
    await_step,
    free_port,
    signal_family,
    start_cast,
    start_command,
    start_mlflow,
)

_TROUBLES = [
    pytest.param(signal.SIGKILL, id="dies"),
    pytest.param(signal.SIGSTOP, id="hangs", marks=pytest.mark.campaign),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trouble", _TROUBLES)
def test_mlflow_during_training(project: Path, tmp_path: Path, trouble: signal.Signals) -> None:
    from mlflow import MlflowClient

    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    server = start_mlflow(tmp_path / "server", port)
    try:
        cast = start_cast(project, *SLOW, MLFLOW_TRACKING_URI=uri)
        run_dir = await_step(project, 60, cast)
        signal_family(psutil.Process(server.pid), trouble)
        _, told = cast.communicate(timeout=200)
        assert cast.returncode == 5, told
        assert "MLflow did not answer" in told and uri in told and "repair" in told
        trained = run_dir.with_suffix("")
        assert (trained / "manifest.json").exists(), "training went on to its end without MLflow"
        if trouble == signal.SIGKILL:
            server.wait()
            server = start_mlflow(tmp_path / "server", port)
        else:
            signal_family(psutil.Process(server.pid), signal.SIGCONT)
        again = start_cast(project, *SLOW, MLFLOW_TRACKING_URI=uri)
        _, told = again.communicate(timeout=200)
        assert again.returncode == 0, told
        client = MlflowClient(uri, uri)
        (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
        history = client.get_metric_history(run.info.run_id, "train/loss")
        steps = [
            record["step"] for record in read_journal(trained / "journal.jsonl") if record["kind"] == "train"
        ]
        assert [entry.step for entry in history] == steps == list(range(1, len(steps) + 1))
        assert run.info.status == "FINISHED"
        assert [entry.version for entry in client.search_model_versions("name = 'digits'")] in (["1"], [1])
    finally:
        signal_family(psutil.Process(server.pid), signal.SIGCONT)
        signal_family(psutil.Process(server.pid), signal.SIGTERM)
        server.wait(30)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("trouble", _TROUBLES)
def test_prefect_during_training(project: Path, command: Command, trouble: signal.Signals) -> None:
    assert command("up").returncode == 0
    overrides = [part for text in SLOW for part in ("--set", text)]
    cast = start_command(project, "run", "recipes/digits.yaml", "--json", *overrides)
    await_step(project, 60, cast)
    record = json.loads((project / ".recaster" / "services" / "prefect.json").read_text())
    server = psutil.Process(record["pid"])
    family = [server, *server.children(recursive=True)]
    for member in family:
        member.send_signal(trouble)
    try:
        out, told = cast.communicate(timeout=250)
        assert cast.returncode == 0, told
        assert "going on without it" in told or "no longer takes progress" in told
        assert (
            "Error logging" not in told
        )  # Prefect's own word for each batch of lines that it could not send
        summary = json.loads(out)
        assert summary["champion"] == "1"
        assert [step["step"] for step in summary["steps"]][-1] == "promote"
    finally:
        for member in family:
            if member.is_running():
                member.send_signal(signal.SIGCONT)
