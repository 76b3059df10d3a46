"""A project's DVC side: `.dvc/` and the stages in `dvc.yaml`."""

from __future__ import annotations

import io
import subprocess
import sys
from importlib.resources import files
from itertools import chain
from pathlib import Path

from ruamel.yaml import YAML

from recaster.core.errors import RecasterError
from recaster.core.files import write_bytes

_STAGES, _RECIPE = "dvc.yaml", "recipes/${item.name}.yaml"


def init_project(project: Path) -> None:
    """Make `project` a DVC project with the data and artifact stages, where it is not one yet.

    Raises:
        RecasterError: `dvc init` refused; its reason is in the message.
    """
    project.mkdir(parents=True, exist_ok=True)
    if not (project / ".dvc").exists():
        in_git = any((folder / ".git").exists() for folder in (project.resolve(), *project.resolve().parents))
        command = [sys.executable, "-m", "dvc", "init", "--quiet", "--subdir" if in_git else "--no-scm"]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RecasterError(
                "DVC could not set the project up.",
                where=str(project),
                value=done.stderr.strip(),
                repair="run `dvc init` there by hand",
            )
    if not (project / _STAGES).exists():
        text = (files("recaster.versioning") / "stages.yaml").read_text(encoding="utf-8")
        write_bytes(project / _STAGES, text.replace("name: [digits]", "name: []").encode())


def add_name(project: Path, name: str) -> None:
    """Add `name` to the matrix of each stage in `dvc.yaml`; comments and order stay."""
    yaml = YAML(typ="rt")
    yaml.width = 4096  # lines are not broken
    yaml.indent(mapping=2, sequence=4, offset=2)  # as the file has it: only what is added should differ
    tree = yaml.load(project / _STAGES)
    for stage in tree["stages"].values():
        names = stage.get("matrix", {}).get("name")
        if names is not None and name not in names:
            names.append(name)
    text = io.StringIO()
    yaml.dump(tree, text)
    write_bytes(project / _STAGES, text.getvalue().encode())


def list_sections(project: Path) -> list[str]:
    """The sections of `recipes/NAME.yaml` that stages of `dvc.yaml` depend on; DVC wants each in the file."""
    tree = YAML(typ="safe").load(project / _STAGES)
    entries = [entry for stage in tree["stages"].values() for entry in stage.get("params", [])]
    named = [entry.get(_RECIPE) or [] for entry in entries if isinstance(entry, dict)]
    return sorted({*chain.from_iterable(named)})
