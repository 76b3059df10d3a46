"""Docs, names and configuration stay true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recaster.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("src", "flows", "tasks") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.name)
def test_recipes_load(path: Path) -> None:
    load_recipe(path)


def test_every_module_says_what_it_is_for() -> None:
    assert [str(path) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_vague_names() -> None:
    assert [path for path in SOURCES if re.search(r"util|common|helper|manager", path.stem)] == []


def test_readme_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recaster.cli", "--help"], capture_output=True, text=True, check=True
    )
    commands = re.findall(r"^\W*([a-z]+)  ", done.stdout, re.MULTILINE)
    assert {"run", "rollback", "schedule", "predict"} <= set(commands)
    readme = (ROOT / "README.md").read_text()
    assert [name for name in commands if name != "help" and f"recaster {name}" not in readme] == []


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "prefect", "mlflow", "dvc", "pandas")
    code = f"import sys, recaster.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_torch_is_pinned() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "torch>=2.11,<3" in wanted
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text()
