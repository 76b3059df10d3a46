"""Ctrl-C, kill -9 at the verbs after training, a full or read-only disk, and two casts at once."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recaster.core.hashing import hash_file
from tests.conftest import SMALL, Command
from tests.faults.processes import (
    RUN,
    SLOW,
    await_step,
    await_true,
    find_ranks,
    lone_rank,
    start_cast,
    start_command,
)

_KILL = (
    """
import importlib, os, signal, sys
where, sys.argv = sys.argv[-1], sys.argv[:-1]
module, owner, name = where.split("/")
place = importlib.import_module(module)
place = getattr(place, owner) if owner else place
real = getattr(place, name)
def then_die(*arguments, **keywords):
    real(*arguments, **keywords)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(place, name, then_die)
"""
    + RUN
)
_MOMENTS = (
    "recaster.evaluation.metrics//measure",
    "recaster.registry.versions//_log_model",
    "mlflow/MlflowClient/create_model_version",
    "mlflow/MlflowClient/set_registered_model_alias",
)
"""Each is done, and then the process is killed: the work is there, and nobody was told."""


@pytest.mark.timeout(300)
def test_killed_after_each_late_act(project: Path) -> None:
    from mlflow import MlflowClient

    for moment in _MOMENTS:
        cast = start_cast(project, *SMALL, *_OPEN_GATE, moment, code=_KILL)
        _, told = cast.communicate(timeout=120)
        assert cast.returncode == -signal.SIGKILL, f"{moment}: {told}"
    cast = start_cast(project, *SMALL, *_OPEN_GATE)
    _, told = cast.communicate(timeout=120)
    assert cast.returncode == 0, told
    uri = f"sqlite:///{project}/.recaster/mlflow/mlflow.db"
    client = MlflowClient(uri, uri)
    (version,) = client.search_model_versions("name = 'digits'")
    aliases = client.get_registered_model("digits").aliases
    assert {alias: str(number) for alias, number in aliases.items()} == {"champion": str(version.version)}
    experiment = client.get_experiment_by_name("digits").experiment_id
    assert len(client.search_runs([experiment])) == 1
    assert len(client.search_logged_models([experiment])) == 1
    (record,) = (project / ".recaster" / "casts").glob("*.json")
    assert json.loads(record.read_text())["accepted"]


_OPEN_GATE = ("gate.bars.0.min=0.05", "gate.bars.1.max=10.0")


@pytest.mark.timeout(300)
def test_ctrl_c_stops_cleanly_and_resumes(project: Path, command: Command, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    other = tmp_path / "unbroken"
    shutil.copytree(project, other)
    unbroken = start_cast(other, *SLOW)
    assert unbroken.wait(200) == 0
    overrides = [part for text in SLOW for part in ("--set", text)]
    cast = start_command(project, "run", "recipes/digits.yaml", *overrides)
    run_dir = await_step(project, 60, cast)
    cast.send_signal(signal.SIGINT)
    _, told = cast.communicate(timeout=60)
    assert cast.returncode == 130, told
    assert "goes on from here" in told and "Traceback" not in told
    await_true(lambda: not find_ranks(run_dir), seconds=15, what="the ranks ended")
    uri = f"sqlite:///{project}/.recaster/mlflow/mlflow.db"
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("digits").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["KILLED"]
    again = command("run", "recipes/digits.yaml", *overrides)
    assert again.returncode == 0, again.stderr
    assert [run.info.status for run in client.search_runs([experiment])] == ["FINISHED"]
    weights = [
        hash_file(next((folder / ".recaster" / "steps" / "train").glob("*/weights.safetensors")))
        for folder in (project, other)
    ]
    assert weights[0] == weights[1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB of its own; skipped, with the reason, where mounting is not allowed."""
    place = tmp_path / "small disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.timeout(300)
def test_full_disk_then_a_larger_one(project: Path, small_disk: Path) -> None:
    """Filled in the data steps, in MLflow's store, at training and later: named each time, nothing lost."""
    finished: set[Path] = set()
    filled = ""
    for size in ("40k", "300k", "700k", "1400k", "1600k", "1800k", "200m"):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
        cast = start_cast(project, *SMALL, *_OPEN_GATE, RECASTER_HOME=str(small_disk))
        told = cast.communicate(timeout=200)[1]
        present = set((small_disk / "steps").glob("*/*/manifest.json"))
        assert finished <= present
        finished = present
        if cast.returncode == 0:
            break  # what a cast takes moves with its parts' versions: which size is enough is not the point
        # Training sees beforehand that its checkpoints will not fit; all else finds the disk full.
        reason = {1: "disk is full", 2: "Too little disk"}[cast.returncode]
        assert reason in told and "MiB free" in told and "RECASTER_HOME" in told, f"{size}: {told}"
        # MLflow may log a traceback of its own before; the last word is the repair.
        assert told.rstrip().splitlines()[-1].strip().startswith("repair:"), f"{size}: {told}"
        filled += next(line for line in reversed(told.splitlines()) if "where:" in line) + "\n"
    assert cast.returncode == 0, told
    assert "/snapshot/" in filled and "mlflow.db" in filled, filled
    assert any(f"/{step}/" in filled for step in ("train", "evaluate", "register")), filled
    assert len(list((small_disk / "casts").glob("*.json"))) == 1


def test_full_disk_during_a_checkpoint_keeps_the_last_one(small_disk: Path) -> None:
    import torch

    from recaster.core.errors import StorageError
    from recaster.training.checkpoint import Saved, load_newest_checkpoint
    from recaster.training.saver import Saver

    model = torch.nn.Linear(256, 256)  # 257 KiB, three times with the moments
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 256)).sum().backward()
    optimizer.step()
    saved = Saved(module=model, optimizers=[optimizer])
    folder = small_disk / "checkpoints"
    told: list[str] = []
    with lone_rank():
        saver = Saver(folder, keep=2)
        saver.save(saved, step=1, memory={}, also_keep=tuple)
        saver.wait()
        subprocess.run(["mount", "-o", "remount,size=1100k", str(small_disk)], check=True)
        saver.save(saved, step=2, memory={}, also_keep=tuple)
        with pytest.raises(StorageError, match="disk is full"):
            saver.close()
        assert load_newest_checkpoint(folder, saved, on_damage=told.append) == 1
    assert told == []


def test_read_only_home(project: Path, small_disk: Path, command: Command) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = command("run", "recipes/digits.yaml", RECASTER_HOME=str(small_disk))
    assert done.returncode == 1 and "cannot be written" in done.stderr and "RECASTER_HOME" in done.stderr


@pytest.mark.timeout(300)
def test_two_casts_at_once(project: Path, command: Command) -> None:
    # Long enough for another command to start and be refused meanwhile.
    overrides = [part for text in (*SLOW, "train.epochs=60") for part in ("--set", text)]
    first = start_command(project, "run", "recipes/digits.yaml", "--json", *overrides)
    await_step(project, 10, first)
    refused = command("run", "recipes/digits.yaml", "--no-wait", *overrides)
    assert refused.returncode == 1 and f"process {first.pid} on " in refused.stderr, refused.stderr
    second = start_command(project, "run", "recipes/digits.yaml", "--json", *overrides)
    out, told = first.communicate(timeout=200)
    assert first.returncode == 0, told
    out, told = second.communicate(timeout=200)
    assert second.returncode == 0, told
    assert f"held by process {first.pid}" in told and "waiting" in told
    assert all(step["reused"] for step in json.loads(out)["steps"])
    assert len(list((project / ".recaster" / "casts").glob("*.json"))) == 1
