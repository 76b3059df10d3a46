"""A recurrent chat model, tuned on preferences too: terminal, command and MLflow's server agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from tests.conftest import Command
from tests.e2e.model_server import serve_model

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]
_ASKED = ["wake me at six", "play old jazz"]
_RECURRENT = ["model.base=scratch:lstm-decoder", "gate.bars=[{metric: perplexity, max: 100}]"]


def _run(recipe: Path, overrides: list[str]) -> dict[str, dict[str, float]]:
    cast = pipeline.open_cast(recipe, overrides)
    summary = pipeline.run(cast, SilentReporter())
    assert summary.accepted, summary.reasons
    (evaluation,) = [step.ref for step in summary.steps if step.step == "evaluate"]
    plots = {path.name for path in (cast.settings.steps / evaluation).glob("*.png")}
    assert {"perplexity.png", "training.png"} <= plots
    told: dict[str, dict[str, float]] = read_json(cast.settings.steps / evaluation / "metrics.json")
    return told


def test_a_champion_is_tuned_on_preferences_and_answers_alike(
    project: Path, command: Command, tmp_path: Path
) -> None:
    plain = _run(project / "recipes" / "chat" / "tiny.yaml", _RECURRENT)
    assert "preference_accuracy" not in plain["metrics"]
    bar = "gate.bars=[{metric: preference_accuracy, min: 0.1}]"
    tuned = _run(project / "recipes" / "chat" / "tiny-preference.yaml", [bar])
    assert tuned["untuned"]["preference_accuracy"]["value"] == 0.5  # type: ignore[index]
    assert {"chosen", "rejected"} == set(tuned["rewards"])

    name = "tiny-preference"
    records = [{"messages": [{"role": "user", "content": text}]} for text in _ASKED]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = command("predict", name, str(tmp_path / "asked.jsonl"), "--json")
    predicted = [row["reply"] for row in json.loads(done.stdout)["predictions"]]
    for text, reply in zip(_ASKED, predicted, strict=True):
        talked = subprocess.run(
            [sys.executable, "-m", "recaster.cli", "chat", name, "--json"],
            input=f"{text}\n",
            cwd=project,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        assert json.loads(talked.stdout)["messages"][-1]["content"] == reply
    with serve_model(project, f"models:/{name}@champion", tmp_path) as ask:
        assert [row["reply"] for row in ask({"dataframe_records": records})] == predicted
