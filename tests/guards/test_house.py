"""Docs, names and configuration stay true."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recaster.recipe.load import load_recipe

ROOT = Path(__file__).parents[2]
WORKLOADS = [
    path.stem.replace("_", "-") for path in (ROOT / "src" / "recaster" / "workloads").glob("[a-z]*.py")
]
SOURCES = [path for folder in ("src", "flows", "tasks") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.name)
def test_recipes_load(path: Path) -> None:
    assert load_recipe(path).workload in {*WORKLOADS}


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


def test_test_modules_have_names_of_their_own() -> None:
    """pytest imports them by their bare names: of two alike one is not collected."""
    names = sorted(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert names == sorted(set(names))


def test_measured_tables_are_made_from_results() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from record import render_targets

    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    tables = [
        found
        for page in pages
        for found in re.findall(r"<!-- table: (\S+) -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL)
    ]
    assert tables
    for name, table in tables:
        result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        assert table == render_targets(result)
        assert set(result) == {"question", "command", "date", "hardware", "versions", "rows", "targets"}


def test_row_tables_are_made_from_results() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from record import render_rows

    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for name, columns, table in re.findall(
            r"<!-- rows: (\S+) (.+?) -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL
        ):
            result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
            assert table == render_rows(result, columns.split()), page


def test_the_table_of_schemes_is_made_from_its_result() -> None:
    from benchmarks.communication_targets import render_schemes

    page = (ROOT / "docs" / "howto" / "communication.md").read_text()
    found = re.search(r"<!-- schemes -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert found
    result = json.loads((ROOT / "benchmarks" / "results" / "communication.json").read_text())
    assert found[1] == render_schemes(result)


def test_faults_page_names_real_tests() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    for path, name in re.findall(r"`((?:faults|e2e|unit|integration)/\w+\.py)(?:::(\w+))?`", page):
        text = (ROOT / "tests" / path).read_text()
        assert not name or f"def {name}(" in text


def test_templates_are_the_project_s_own_files() -> None:
    library = ROOT / "src" / "recaster"
    assert (library / "recipe" / "template.yaml").read_text() == (
        ROOT / "recipes" / "digits.yaml"
    ).read_text()
    assert (library / "versioning" / "stages.yaml").read_text() == (ROOT / "dvc.yaml").read_text()


def test_reference_pages_are_made_from_their_sources() -> None:
    page = ROOT / "docs" / "reference" / "generate.py"
    code = (
        "import runpy, sys; pages = runpy.run_path(sys.argv[1])['PAGES'];"
        "print([page.name for page, render in pages.items() if page.read_text() != render()])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(page)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", "run `make reference`"


def test_links_between_pages_hold() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "mlflow" / "README.md"]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_pages_name_real_commands_and_targets() -> None:
    reference = (ROOT / "docs" / "reference" / "command.md").read_text()
    known = set(re.findall(r"^## recaster (\w+)", reference, re.MULTILINE))
    targets = set(re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets = {name for line in targets for name in line.split()}
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "mlflow" / "README.md"]:
        text = page.read_text()
        assert set(re.findall(r"(?:^|`)recaster ([a-z]+)", text, re.MULTILINE)) <= known, page
        assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets, page


def test_no_python_below_mlflow() -> None:
    """It would shadow the package of its name wherever the project's folder is on the path."""
    assert list((ROOT / "mlflow").rglob("*.py")) == []


def test_torch_is_pinned() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "torch>=2.11,<3" in wanted
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text()
