"""Which code a project stands at: git's answer, where the project is in git."""

from __future__ import annotations

import subprocess
from pathlib import Path


def read_commit(project: Path) -> tuple[str, bool] | None:
    """The commit of the work tree and whether files differ from it; None outside git or without it."""
    try:
        commit = _git(project, "rev-parse", "HEAD")
        changed = _git(project, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit, bool(changed)


def _git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout.strip()
