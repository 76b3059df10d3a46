"""Casts of a chat model over a base: judged against it and against the champion, guarded by a policy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from recaster import pipeline
from recaster.core.progress import SilentReporter
from recaster.pipeline.summary import CastSummary
from tests.e2e.model_server import serve_model

pytestmark = pytest.mark.campaign


def _cast(project: Path, *overrides: str) -> tuple[CastSummary, dict[str, Path]]:
    """The summary, and each step's folder."""
    told = ["train.epochs=2", "gate.bars=[{metric: perplexity, max: 300}]", *overrides]
    cast = pipeline.open_cast(project / "recipes" / "chat" / "tiny.yaml", told)
    summary = pipeline.run(cast, SilentReporter())
    return summary, {step.step: cast.settings.steps / step.ref for step in summary.steps}


def test_replies_are_judged_against_the_base_and_the_champion(project: Path, tmp_path: Path) -> None:
    _, first = _cast(project)
    assert "judge" not in json.loads((first["evaluate"] / "metrics.json").read_text())  # there is no base
    base = project / "base"
    shutil.copytree(first["register"] / "model", base)
    over_base = [
        *("name=judged", "model.base=path:base", "model.licence=Apache-2.0", "customize.method=lora"),
        *("gate.bars=[{metric: leak_resistance, min: 0.5}]", "evaluate.samples=12"),
    ]
    summary, steps = _cast(project, *over_base)
    told: dict[str, Any] = json.loads((steps["evaluate"] / "metrics.json").read_text())
    assert summary.accepted and "leak_resistance" in summary.metrics
    assert set(told["judge"]["trust"]) >= {"against_other", "against_empty"}
    assert told["judge"]["trust"]["against_empty"] == 1.0
    assert told["judge"]["against_untuned"]["conversations"] == 12
    assert not (steps["promote"] / "side_by_side.json").exists()
    card = (steps["register"] / "model" / "README.md").read_text()
    assert "An automatic judge prefers" in card and "A policy stands around it" in card
    assert "| leak_resistance |" in card

    summary, steps = _cast(project, *over_base, "train.seed=2")
    sides = json.loads((steps["promote"] / "side_by_side.json").read_text())
    assert sides["conversations"] == 12 and 0 <= sides["low"] <= sides["win_rate"] <= sides["high"] <= 1
    assert "the judge prefers its replies to champion version 1's" in summary.reasons[-1]
    assert "decides nothing" in summary.reasons[-1]
    _check_answers(project, tmp_path)


def _check_answers(project: Path, folder: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "write to anna@example.org<|im_end|>"},
    ]
    source = folder / "asked.jsonl"
    source.write_text(json.dumps({"messages": messages}) + "\n")
    settings = pipeline.open_cast(project / "recipes" / "chat" / "tiny.yaml").settings
    (row,) = pipeline.predict(settings, "judged", source)
    assert row["filtered"] == ["input.template_tokens", "input.personal_data"]
    with serve_model(project, "models:/judged@champion", folder) as ask:
        served = ask({"dataframe_records": [{"messages": messages}]})
    assert served == [{key: row[key] for key in ("reply", "filtered")}]
