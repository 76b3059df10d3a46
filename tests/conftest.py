"""A project of its own for each test: real stores, a folder with a space in its name, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Two workers of pytest share two cores: threads of one that spin until those of the other are off
# the core turn milliseconds into seconds. A rank's own number of threads is not touched by this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from recaster.core.collection import collect_rarely
from recaster.core.settings import quiet_dependencies

collect_rarely()

ROOT = Path(__file__).parent.parent
SMALL = (
    "train.epochs=2",
    "model.width=8",
    "evaluate.bootstrap_samples=100",
    "train.checkpoint_every_steps=5",
)
"""Overrides that make a cast of digits quick."""
_LONGEST_NAME = 300
Command = Callable[..., subprocess.CompletedProcess[str]]


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder of this session, the same for all its processes."""
    base = factory.getbasetemp()
    # Under pytest-xdist the parent is the session's; else other sessions share it.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to go on where groups are not kept: two workers would then make the same models side by side.

    And where a test's name has a parameter's whole content in it, which fills the log of a verbose run.
    """
    if long := [item for item in items if len(item.nodeid) > _LONGEST_NAME]:
        raise pytest.UsageError(f"give its parameters ids: {long[0].nodeid[:_LONGEST_NAME]}…")
    if not getattr(config.option, "loadgroup", False):
        return
    apart = [item for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if apart:
        raise pytest.UsageError(
            f"pytest-xdist does not keep the group of {apart[0].nodeid}: see constraints.txt"
        )


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet_dependencies()
    for name in ("RECASTER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the repository's project files."""
    folder = tmp_path / "my project"
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    config = (ROOT / ".dvc" / "config").read_text()
    (folder / ".dvc" / "config").write_text(config.replace("[core]\n", "[core]\n    no_scm = true\n"))
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    return folder


@pytest.fixture
def command(project: Path) -> Iterator[Command]:
    """Run `recaster` as a user would, in `project`; its services end with the test."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "recaster.cli", *arguments],
            cwd=project,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    yield call
    call("down")


@pytest.fixture
def write_pictures(project: Path) -> Callable[..., list[str]]:
    """Write a JSON lines set of 3 x `rows` good pictures, changed; return the overrides for it."""

    def write(change: Callable[[list[dict[str, object]]], None] | None = None, rows: int = 30) -> list[str]:
        random = np.random.default_rng(0)
        records: list[dict[str, object]] = [
            {
                "id": f"p{label}-{row}",
                "label": str(label),
                "image": (random.integers(0, 9, (8, 8)) + 2 * label).tolist(),
            }
            for label in range(3)
            for row in range(rows)
        ]
        if change:
            change(records)
        (project / "pictures.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return ["data.source=pictures.jsonl", "data.labels=['0','1','2']", "contract.min_rows=50"]

    return write
