"""DVC and the flow agree, and a version comes back bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from recaster import pipeline
from recaster.core.hashing import hash_directory
from recaster.core.progress import SilentReporter


def _dvc(project: Path, *arguments: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _prepare(project: Path) -> pipeline.StepResult:
    cast = pipeline.open_cast(project / "recipes" / "digits.yaml")
    raw = pipeline.snapshot(cast, SilentReporter())
    checked = pipeline.validate(cast, raw)
    prepared = pipeline.prepare(cast, raw, checked)
    pipeline.version_data(cast, raw, checked, prepared, SilentReporter())
    return prepared


def test_repro_after_the_flow_has_nothing_to_do_and_pull_restores(project: Path) -> None:
    _prepare(project)
    assert "up to date" in _dvc(project, "repro")
    place = project / "data" / "digits" / "prepared"
    before = hash_directory(place)
    _dvc(project, "push")
    shutil.rmtree(place)
    shutil.rmtree(project / ".dvc" / "cache")
    _dvc(project, "pull")
    assert hash_directory(place) == before


def test_the_flow_after_repro_has_nothing_to_do(project: Path) -> None:
    _dvc(project, "repro")
    lock = (project / "dvc.lock").read_text()
    assert _prepare(project).reused
    assert (project / "dvc.lock").read_text() == lock
