"""A translation model from raw texts to the command, standard input and MLflow's own server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recaster import pipeline
from recaster.core.progress import SilentReporter
from tests.conftest import Command
from tests.e2e.model_server import serve_model

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]
_NAME = "tiny-translation"
_TEXTS = ["Call Anna tomorrow.", "Wake me at six. Play old jazz at home."]


def test_the_command_and_the_server_write_the_same(project: Path, command: Command, tmp_path: Path) -> None:
    recipe = project / "recipes" / "translation" / "tiny.yaml"
    cast = pipeline.open_cast(recipe, ["data.pairs.directions=[en-de,de-en]"])
    summary = pipeline.run(cast, SilentReporter())
    assert summary.accepted, summary.reasons
    evaluation = cast.settings.steps / next(one.ref for one in summary.steps if one.step == "evaluate")
    plots = {path.name for path in evaluation.glob("*.png")}
    assert {"length.png", "attention.png", "training.png"} <= plots

    (tmp_path / "new.txt").write_text("".join(f"{text}\n" for text in _TEXTS))
    (tmp_path / "new.jsonl").write_text(json.dumps({"id": "a", "de": "Weck mich morgen."}) + "\n")
    (tmp_path / "none.jsonl").write_text(json.dumps({"id": "a", "fr": "Appelle Anna."}) + "\n")
    lines, back = (
        json.loads(command("predict", _NAME, str(tmp_path / name), "--json").stdout)["predictions"]
        for name in ("new.txt", "new.jsonl")
    )
    assert [row["direction"] for row in lines] == ["en-de"] * 2 and back[0]["direction"] == "de-en"
    assert lines[0]["translation"] == "Ruf morgen Anna an."
    none = command("predict", _NAME, str(tmp_path / "none.jsonl"))
    assert none.returncode == 3 and "a text in none of en, de" in none.stderr

    records = [{"text": text, "direction": "en-de"} for text in _TEXTS]
    with serve_model(project, f"models:/{_NAME}@champion", tmp_path) as ask:
        served = ask({"dataframe_records": records})
        drawn = ask({"dataframe_records": records, "params": {"temperature": 3.0, "seed": 4}})
    assert [row["translation"] for row in served] == [row["translation"] for row in lines]
    assert drawn != served
