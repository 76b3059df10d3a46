"""A cast of requests of which some are none of the known ones, from a .json file of parts to its answers."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from recaster import pipeline
from recaster.core.errors import ContractError, DataError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.synthetic import LABELS, make_requests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_SETTINGS = (
    "data.out_of_scope=other",
    "train.loss={name: cross-entropy, outlier_weight: 0.5}",
    "train.epochs=6",
    "evaluate={false_reject_rate: 0.05, bootstrap_samples: 100}",
    "gate={bars: [{metric: out_of_scope_auroc, min: 0.9}], champion: {metric: accuracy}}",
    "split={seed: 1}",
)


def _write(path: Path) -> None:
    """Requests in three parts, and beside each other things, which share words with them."""
    parts: dict[str, list[list[str]]] = {name: [] for name in ("train", "val", "test")}
    for number, record in enumerate(make_requests()):
        name = ("train", "train", "train", "val", "test")[number % 5]
        parts[name].append([f"{record.text} {number}", record.label or ""])  # no two are equal
    random, numbers = np.random.default_rng(5), count()
    words = ("painted", "capital", "tax", "knitting", "recipe", "soup", "old", "form", "of", "who", "is")
    for name, rows in (("train", 120), ("val", 40), ("test", 80)):
        parts[f"other_{name}"] = [
            [f"{' '.join(random.choice(words, 6))} {next(numbers)}", "other"] for _ in range(rows)
        ]
    path.write_text(json.dumps(parts))


def _cast(project: Path, *overrides: str) -> pipeline.Cast:
    file = "data.source=requests.json#parts="
    published = {
        name: f"requests.json#parts={part},other_{part}"
        for name, part in (("validation", "val"), ("test", "test"))
    }
    settings = (f"{file}train,other_train", f"data.published_splits={json.dumps(published)}", *_SETTINGS)
    return pipeline.open_cast(
        project / "recipes" / "text-classification" / "tiny.yaml", (*settings, *overrides)
    )


def test_it_knows_what_it_does_not_know(project: Path) -> None:
    _write(project / "requests.json")
    cast = _cast(project)
    summary = pipeline.run(cast, SilentReporter())
    assert summary.accepted, summary.reasons
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    metrics = evaluated.facts["metrics"]
    assert metrics["accuracy"]["value"] > 0.95 and metrics["out_of_scope_recall"]["value"] > 0.5
    assert metrics["in_scope_rejected"]["value"] < 0.15
    told = read_json(evaluated.path / "metrics.json")
    assert (
        sum(row["rows"] for row in told["classes"]) == 240 and (evaluated.path / "scope.png").stat().st_size
    )
    assert set(told["word_average"]["metrics"]) == {"accuracy", "macro_f1", "out_of_scope_auroc"}

    ask = project / "ask.jsonl"
    ask.write_text('{"text": "wake me at noon"}\n{"text": "knitting recipe soup old capital who"}\n')
    answers = [row["label"] for row in pipeline.predict(cast.settings, cast.recipe.name, ask)]
    assert answers == ["alarm", "other"]
    about = read_json(pipeline.run_to(cast, "export", SilentReporter()).path / "preprocessing.json")
    assert about["out_of_scope"] == "other" and 1 / len(LABELS) < about["least_probability"] < 1


def test_parts_that_are_not_there_are_named(project: Path) -> None:
    _write(project / "requests.json")
    cast = _cast(project, "data.source=requests.json#parts=train,oos")
    with pytest.raises(DataError, match=re.escape("lacks a part")) as caught:
        pipeline.run_to(cast, "snapshot", SilentReporter())
    assert "oos" in str(caught.value) and "other_train" in str(caught.value)
    (project / "texts.txt").write_text("music play\n")
    with pytest.raises(DataError, match=r"Parts are taken of a \.json file"):
        pipeline.run_to(_cast(project, "data.source=texts.txt#parts=a"), "snapshot", SilentReporter())


def test_entries_of_another_form_are_broken_records(project: Path) -> None:
    rows = [["play it", "music"], {"text": "wake me", "label": "alarm"}, ["alone"], 7, {"text": 3}]
    (project / "some.json").write_text(json.dumps({"all": rows * 20}))
    settings = ("data.source=some.json", "split.validation=0.1", "split.test=0.1")
    recipe = project / "recipes" / "text-classification" / "tiny.yaml"
    with pytest.raises(ContractError, match="60 of 100 records") as caught:
        pipeline.run_to(pipeline.open_cast(recipe, settings), "validate", SilentReporter())
    assert "all[2]" in str(caught.value)
