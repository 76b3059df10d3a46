"""kill -9 and damage, for real: the same command ends with the same weights and one model version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recaster import pipeline
from recaster.core.errors import CheckpointError, DivergedError
from recaster.core.progress import SilentReporter
from recaster.training.journal import read_journal
from tests.conftest import SMALL
from tests.faults.processes import lone_rank

_STEPWISE = (*SMALL, "train.record_every_steps=1")
_RUN = """
import sys
from pathlib import Path
from recaster import pipeline
from recaster.core.progress import SilentReporter
from recaster.core.settings import quiet_dependencies
quiet_dependencies()
pipeline.run(pipeline.open_cast(Path(sys.argv[1]), sys.argv[2:]), SilentReporter())
"""


def _start(project: Path) -> subprocess.Popen[bytes]:
    recipe = str(project / "recipes" / "digits.yaml")
    return subprocess.Popen([sys.executable, "-c", _RUN, recipe, *_STEPWISE], start_new_session=True)


def _finish(project: Path) -> tuple[str, list[dict[str, object]], int]:
    """Weights' hash, journal, and number of model versions after an undisturbed run."""
    from recaster.registry.versions import list_versions
    from recaster.tracking.runs import open_tracking

    cast = pipeline.open_cast(project / "recipes" / "digits.yaml", _STEPWISE)
    pipeline.run(cast, SilentReporter())
    trained = next((cast.settings.steps / "train").glob("*/result.json"))
    weights = trained.parent / "weights.safetensors"
    from recaster.core.hashing import hash_file

    versions = list_versions(open_tracking(cast.settings), "digits")
    return hash_file(weights), read_journal(trained.parent / "journal.jsonl"), len(versions)


def _await_step(project: Path, step: int, process: subprocess.Popen[bytes]) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for journal in (project / ".recaster" / "steps" / "train").glob("*/journal.jsonl"):
            if any(record["step"] >= step for record in read_journal(journal)):
                return journal.parent
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached, exit code {process.poll()}")


def _ranks(run_dir: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if "recaster.training" in line and str(run_dir) in line:
            found.append(process)
    return found


@pytest.mark.timeout(300)
def test_killed_anywhere_ends_with_the_same_weights(project: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "unbroken"
    shutil.copytree(project, other)
    weights, _, _ = _finish(other)
    for seconds in (1.0, 3.5):  # before and around the data steps
        process = _start(project)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process = _start(project)
    run_dir = _await_step(project, 12, process)
    os.kill(process.pid, signal.SIGKILL)  # the parent: launcher and ranks must not train on
    process.wait()
    deadline = time.monotonic() + 10
    while _ranks(run_dir) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _ranks(run_dir)
    broken, journal, versions = _finish(project)
    assert broken == weights
    assert [record["step"] for record in journal if record["kind"] == "train"] == list(range(1, 41))
    assert versions == 1


@pytest.mark.timeout(300)
def test_a_killed_rank_is_replaced(project: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "unbroken"
    shutil.copytree(project, other)
    weights, _, _ = _finish(other)
    process = _start(project)
    run_dir = _await_step(project, 7, process)
    ranks = _ranks(run_dir)
    if ranks:
        ranks[0].kill()
    assert process.wait(120) == 0
    broken, journal, versions = _finish(project)
    assert (broken, versions) == (weights, 1)
    assert [record["step"] for record in journal if record["kind"] == "train"] == list(range(1, 41))


def test_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    import torch

    from recaster.training.checkpoint import Saved, load_newest_checkpoint
    from recaster.training.saver import Saver

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    saved = Saved(module=model, optimizers=[optimizer])
    told: list[str] = []
    with lone_rank():
        saver = Saver(tmp_path, keep=2)
        for step in (1, 2, 3):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            saver.save(saved, step=step, memory={}, also_keep=tuple)
        saver.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00000003"]
        tensors = next((tmp_path / "00000003").glob("*.safetensors"))
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
        assert load_newest_checkpoint(tmp_path, saved, on_damage=told.append) == 2
        assert "00000003 is damaged" in told[0]
        (tmp_path / "00000002" / "state.json").write_text("{")
        with pytest.raises(CheckpointError):
            load_newest_checkpoint(tmp_path, saved, on_damage=told.append)


def test_divergence_is_named(project: Path) -> None:
    cast = pipeline.open_cast(
        project / "recipes" / "digits.yaml",
        [*SMALL, "train.optimizer={name: sgd, learning_rate: 1e30}", "distributed.max_restarts=0"],
    )
    with pytest.raises(DivergedError, match="digit-"):
        pipeline.run(cast, SilentReporter())
