"""A user's day: cast, cast again, a worse and a better challenger, rollback, serving without Recaster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlflow import MlflowClient
from tests.conftest import Command

_WEAK = ("--set", "train.epochs=6", "--set", "gate.bars.0.min=0.5", "--set", "gate.bars.1.max=3.0")
_SERVE = """
import sys, mlflow, numpy as np
assert not any(name.startswith("recaster") for name in sys.modules)
pixels, wanted = np.load(sys.argv[1]), np.load(sys.argv[2])
frame = mlflow.pyfunc.load_model("models:/digits@champion").predict(pixels)
np.testing.assert_allclose(frame.iloc[:, 1:].to_numpy(), wanted, atol=1e-6)
assert not any(name.startswith("recaster") for name in sys.modules)
"""


@pytest.mark.timeout(290)
def test_a_users_day(command: Command, project: Path, tmp_path: Path) -> None:
    run = ("run", "recipes/digits.yaml", "--json")
    first = command(*run, *_WEAK)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["champion"] == "1"

    again = command(*run, *_WEAK)
    assert again.returncode == 0 and "nothing to do" in again.stderr
    assert all(step["reused"] for step in json.loads(again.stdout)["steps"])

    worse = command(*run, *_WEAK, "--set", "train.epochs=1")
    assert worse.returncode == 4, worse.stderr
    told = json.loads(worse.stdout)
    assert (told["champion"], told["model_version"]) == ("1", "2")
    assert "does not beat champion version 1" in " ".join(told["reasons"])
    _check_refusal_is_noted(project)
    reused = {step["step"]: step["reused"] for step in told["steps"]}
    assert reused["prepare"] and not reused["train"]

    better = command(*run)
    assert better.returncode == 0, better.stderr
    told = json.loads(better.stdout)
    assert (told["champion"], told["model_version"]) == ("3", "3")
    assert told["metrics"]["accuracy"]["value"] >= 0.985

    # The cast's data and artifact are what `dvc repro` would make: it has nothing to do.
    repro = [sys.executable, "-m", "dvc", "repro"]
    agreed = subprocess.run(repro, cwd=project, capture_output=True, text=True, check=True)
    assert "up to date" in agreed.stdout and "Running stage" not in agreed.stdout

    _check_served(project, told, tmp_path)
    back = command("rollback", "digits", "--json")
    assert json.loads(back.stdout)["restored"] == "1"
    assert json.loads(command("status", "--json").stdout)["models"]["digits"]["champion"] == "1"
    after = command(*run)
    assert after.returncode == 4 and "taken out of production" in after.stdout
    assert json.loads(after.stdout)["champion"] == "1"
    assert command("rollback", "digits").returncode == 1
    assert len(json.loads(command("history", "--json").stdout)["casts"]) == 4
    assert "prefect" in json.loads(command("status", "--json").stdout)["services"]
    assert json.loads(command("down", "--json").stdout)["stopped"] == ["prefect"]


def _check_refusal_is_noted(project: Path) -> None:
    """The version's page says why, and the run's page what was measured."""
    uri = f"sqlite:///{project}/.recaster/mlflow/mlflow.db"
    client = MlflowClient(uri, uri)
    refused = client.get_model_version_by_alias("digits", "challenger")
    assert "does not beat champion version 1" in refused.tags["recaster.refused_because"]
    assert "accuracy" in client.get_run(refused.run_id).data.tags["mlflow.note.content"]


def _check_served(project: Path, told: dict[str, object], tmp_path: Path) -> None:
    """The champion, loaded by plain MLflow in another folder, answers as the evaluation did."""
    steps = project / ".recaster" / "steps"
    refs = {step["step"]: step["ref"] for step in told["steps"]}  # type: ignore[attr-defined]
    images = np.load(steps / refs["prepare"] / "test.images.npy")
    np.save(tmp_path / "pixels.npy", images.transpose(0, 2, 3, 1).astype(np.float32))
    uri = f"sqlite:///{project}/.recaster/mlflow/mlflow.db"
    arguments = [str(tmp_path / "pixels.npy"), str(steps / refs["evaluate"] / "predictions.npy")]
    subprocess.run(
        [sys.executable, "-c", _SERVE, *arguments],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        check=True,
        timeout=120,
    )
    pickles = [
        path
        for path in (project / ".recaster" / "mlflow").rglob("*")
        if path.suffix in {".pkl", ".pt", ".pth"}
    ]
    assert pickles == []


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("run", "recipes/absent.yaml"), 2, "absent.yaml"),
        (("run", "recipes/digits.yaml", "--set", "train.epohs=3"), 2, "did you mean 'epochs'"),
        (("run", "recipes/digits.yaml", "--set", "workload=sorcery"), 2, "image-classification"),
        (("check", "recipes/digits.yaml", "--set", "data.source=absent.csv"), 3, "absent.csv"),
        (("run",), 2, "RECIPE"),
        (("rollback", "nobody"), 1, "no former champion"),
    ],
)
def test_exit_codes(command: Command, arguments: tuple[str, ...], code: int, named: str) -> None:
    done = command(*arguments)
    assert done.returncode == code, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_services_that_refuse(command: Command) -> None:
    refused = command("run", "recipes/digits.yaml", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert refused.returncode == 5 and "MLFLOW_TRACKING_URI" in refused.stderr
    refused = command("run", "recipes/digits.yaml", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert refused.returncode == 5 and "PREFECT_API_URL" in refused.stderr


def test_home_that_is_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command("run", "recipes/digits.yaml", RECASTER_HOME=str(tmp_path / "file"))
    assert done.returncode == 1 and "RECASTER_HOME" in done.stderr
