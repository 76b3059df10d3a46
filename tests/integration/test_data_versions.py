"""DVC and the flow agree, and a version comes back bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.hashing import hash_directory
from recaster.core.progress import SilentReporter
from recaster.recipe.load import load_recipe


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


def _prepare(project: Path, name: str = "digits") -> pipeline.StepResult:
    cast = pipeline.open_cast(project / "recipes" / f"{name}.yaml")
    raw = pipeline.snapshot(cast, SilentReporter())
    checked = pipeline.validate(cast, raw)
    prepared = pipeline.prepare(cast, raw, checked)
    pipeline.version_data(cast, raw, checked, prepared, SilentReporter())
    return prepared


def test_repro_after_the_flow_has_nothing_to_do_and_pull_restores(project: Path) -> None:
    _prepare(project)
    assert "up to date" in _dvc(project, "repro", "prepare@digits")
    place = project / "data" / "digits" / "prepared"
    before = hash_directory(place)
    _dvc(project, "push", "snapshot@digits", "validate@digits", "prepare@digits")
    shutil.rmtree(place)
    shutil.rmtree(project / ".dvc" / "cache")
    _dvc(project, "pull", "snapshot@digits", "validate@digits", "prepare@digits")
    assert hash_directory(place) == before


def test_the_flow_after_repro_has_nothing_to_do(project: Path) -> None:
    _dvc(project, "repro", "prepare@digits")
    lock = (project / "dvc.lock").read_text()
    assert _prepare(project).reused
    assert (project / "dvc.lock").read_text() == lock


def test_the_lock_follows_the_data_back_and_forth(
    project: Path, write_pictures: Callable[..., list[str]]
) -> None:
    """A, then B, then A again: dvc.lock names the present data each time, not the last that was new."""
    write_pictures()
    recipe = project / "recipes" / "digits.yaml"
    text = (
        recipe.read_text()
        .replace("builtin:digits", "pictures.jsonl")
        .replace("min_rows: 500", "min_rows: 50")
    )
    recipe.write_text(text.replace('["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]', '["0", "1", "2"]'))
    before = (project / "pictures.jsonl").read_bytes()
    locks = []
    for content in (before, before.replace(b'"p0-0"', b'"p0-changed"'), before):
        (project / "pictures.jsonl").write_bytes(content)
        _prepare(project)
        locks.append((project / "dvc.lock").read_text())
    assert locks[0] == locks[2] != locks[1]


def test_overrides_of_the_data_leave_the_lock(project: Path) -> None:
    _prepare(project)
    lock = (project / "dvc.lock").read_text()
    cast = pipeline.open_cast(project / "recipes" / "digits.yaml", ["split.seed=8"])
    raw = pipeline.snapshot(cast, SilentReporter())
    checked = pipeline.validate(cast, raw)
    prepared = pipeline.prepare(cast, raw, checked)
    assert pipeline.version_data(cast, raw, checked, prepared, SilentReporter()) is None
    assert (project / "dvc.lock").read_text() == lock


def test_new_recipe_in_an_empty_folder(tmp_path: Path) -> None:
    from recaster.core.settings import find_settings

    folder = tmp_path / "empty place"
    folder.mkdir()
    pipeline.new_recipe(find_settings(folder), "faces")
    _prepare(folder, "faces")
    assert "up to date" in _dvc(folder, "status", "prepare@faces")
    assert "prepare@faces" in (folder / "dvc.lock").read_text()


def test_a_copy_of_a_recipe_in_another_place_is_versioned(project: Path) -> None:
    from recaster.core.settings import find_settings

    settings, source = find_settings(project), project / "recipes" / "face-recognition" / "tiny.yaml"
    stages = (project / "dvc.yaml").read_text()
    copy = pipeline.new_recipe(settings, "faces", source)
    assert (project / "dvc.yaml").read_text() == stages.replace("[digits]", "[digits, faces]")
    written = source.read_text().replace("name: tiny-face-recognition", "name: faces")
    assert copy.read_text() == written + "\ncommunication: {}\n\ncontract: {}\n\ncustomize: {}\n"
    assert load_recipe(copy).model_dump() == {**load_recipe(source).model_dump(), "name": "faces"}
    _prepare(project, "faces")
    assert "up to date" in _dvc(project, "status", "prepare@faces")
    assert "prepare@faces" in (project / "dvc.lock").read_text()


def test_what_is_no_recipe_is_not_copied(project: Path) -> None:
    from recaster.core.settings import find_settings

    (project / "odd.yaml").write_text("name: odd\n")
    stages = (project / "dvc.yaml").read_text()
    with pytest.raises(RecipeError, match=r"odd\.yaml"):
        pipeline.new_recipe(find_settings(project), "copy", project / "odd.yaml")
    assert not (project / "recipes" / "copy.yaml").exists()
    assert (project / "dvc.yaml").read_text() == stages
