"""DVC versions of data sets and artifacts: the flow's work recorded as the stages of `dvc.yaml`.

A finished step is mirrored to its place in the work tree and committed to `dvc.lock` and the DVC
cache, so that `dvc repro` finds nothing to do, and `dvc push`/`pull` carry it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from recaster.core.errors import RecasterError
from recaster.core.files import mirror_directory
from recaster.core.locks import hold_lock
from recaster.core.settings import Settings
from recaster.core.steps import MANIFEST, StepResult

PLACES = {
    "snapshot": "data/{name}/raw",
    "validate": "data/{name}/contract",
    "prepare": "data/{name}/prepared",
    "export": "artifacts/{name}",
}
"""Where each versioned step's content stands in the work tree."""
_LOCK_WAIT_SECONDS = 600.0


def mirror_step(settings: Settings, name: str, result: StepResult) -> Path:
    """Make the step's place in the work tree hold its content; return the place."""
    place = settings.project / PLACES[result.step].format(name=name)
    mirror_directory(result.path, place, leave_out=[MANIFEST])
    return place


def commit_stages(settings: Settings, name: str, steps: list[str]) -> dict[str, str]:
    """Record the present content of the steps' places in `dvc.lock` and the cache.

    Returns:
        The DVC md5 of each step's content.

    Raises:
        RecasterError: DVC refused; its reason is in the message.
    """
    # DVC's own command: its library resolves stages against the current folder and writes to standard output.
    command = [sys.executable, "-m", "dvc", "commit", "--force", *(f"{step}@{name}" for step in steps)]
    # Two DVC processes collide on its own lock, so ours comes first.
    with hold_lock(settings.home / "locks" / "dvc.lock", name="DVC", wait_seconds=_LOCK_WAIT_SECONDS):
        done = subprocess.run(command, cwd=settings.project, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RecasterError(
                "DVC did not take the data version.",
                where=str(settings.project / "dvc.yaml"),
                value=done.stderr.strip() or done.stdout.strip(),
                repair=f"add {name!r} to the matrix of each stage in dvc.yaml, write missing sections "
                "into the recipe (`contract: {}` stands for the defaults), or run `dvc doctor`",
            )
        versions = read_versions(settings, name)
    return {step: versions[step] for step in steps}


def read_versions(settings: Settings, name: str) -> dict[str, str]:
    """The DVC md5 of the content of each stage of `name` that `dvc.lock` knows."""
    lock = settings.project / "dvc.lock"
    stages = (YAML(typ="safe").load(lock) or {}).get("stages", {}) if lock.exists() else {}
    return {step: stages[f"{step}@{name}"]["outs"][0]["md5"] for step in PLACES if f"{step}@{name}" in stages}


def lock_agrees(settings: Settings, name: str, versions: Mapping[str, str]) -> bool:
    """Whether `dvc.lock` names these versions and their places are there."""
    present = read_versions(settings, name)
    return all(
        present.get(step) == version and (settings.project / PLACES[step].format(name=name)).exists()
        for step, version in versions.items()
    )
