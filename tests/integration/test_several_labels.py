"""Casts whose records have several labels or none, from tables and JSON to answers elsewhere."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recaster import pipeline
from recaster.core.errors import ContractError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LABELS = ["wide", "tall", "dot"]
_RECIPE = "recipes/tiny.yaml"


def _open(folder: Path, workload: str, *overrides: str) -> pipeline.Cast:
    recipe = folder / _RECIPE
    recipe.parent.mkdir(parents=True)
    shutil.copy(ROOT / "recipes" / workload / "tiny.yaml", recipe)
    shutil.copy(ROOT / "dvc.yaml", folder)
    told = (
        f"data.labels=[{', '.join(LABELS)}]",
        "data.several_labels=true",
        "train.loss={name: binary-cross-entropy, class_weights: balanced}",
        "gate={bars: [{metric: macro_average_precision, min: 0.9}], champion: {metric: micro_f1}}",
    )
    return pipeline.open_cast(recipe, (*told, *overrides))


def _pictures(path: Path) -> list[set[str]]:
    """Noise with a bright row, column or corner, each there or not; the corner seldom."""
    random, lines, has = np.random.default_rng(0), [], []
    for number in range(400):
        own = {
            label for label, share in zip(LABELS, (0.5, 0.4, 0.15), strict=True) if random.random() < share
        }
        picture = random.integers(0, 7, (8, 8))
        if "wide" in own:
            picture[random.integers(3, 7)] = 14
        if "tall" in own:
            picture[:, random.integers(3, 7)] = 14
        if "dot" in own:
            picture[:2, :2] = 16
        has.append(own)
        lines.append(
            json.dumps(
                {"id": f"p{number}", "label": sorted(own, key=LABELS.index), "image": picture.tolist()}
            )
        )
    path.write_text("\n".join(lines) + "\n")
    return has


def test_pictures(tmp_path: Path) -> None:
    cast = _open(tmp_path, "image-classification", "data.source=pictures.jsonl", "train.epochs=15")
    has = _pictures(tmp_path / "pictures.jsonl")
    summary = pipeline.run(cast, SilentReporter())
    assert summary.accepted, summary.reasons
    checked = pipeline.run_to(cast, "validate", SilentReporter()).facts
    assert checked["rows_per_label"] == {label: sum(label in own for own in has) for label in LABELS}
    told = read_json(pipeline.run_to(cast, "prepare", SilentReporter()).path / "splits.json")
    assert all(set(counts) == {"0", "1", "2"} for counts in told["per_label"].values())  # dot in each split
    plan = read_json(pipeline.run_to(cast, "train", SilentReporter()).path / "plan.json")
    counts, rows = told["per_label"]["train"], told["rows"]["train"]
    assert plan["train"]["loss"]["class_weights"] == pytest.approx(
        [(rows - counts[str(number)]) / counts[str(number)] for number in range(3)], rel=1e-5
    )
    rows = pipeline.predict(cast.settings, cast.recipe.name, tmp_path / "pictures.jsonl")
    assert (
        np.mean(
            [set(filter(None, row["label"].split("|"))) == own for row, own in zip(rows, has, strict=True)]
        )
        > 0.9
    )
    assert any(row["label"] == "" for row in rows) and any("|" in row["label"] for row in rows)


def _texts(path: Path) -> None:
    """A word of its own for each label that a text has, among others."""
    random = np.random.default_rng(1)
    other = [f"word{number}" for number in range(40)]
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", "text"])
        for number in range(500):
            own = [label for label in LABELS if random.random() < 0.4]
            words = [*random.choice(other, 6), *(f"it_is_{label}" for label in own)]
            table.writerow([f"t{number}", "|".join(own), " ".join(random.permutation(words))])


def test_texts(tmp_path: Path) -> None:
    cast = _open(
        tmp_path,
        "text-classification",
        "data.source=texts.csv",
        "model.base=scratch:kim-cnn",
        "train.epochs=5",
        "train.optimizer.learning_rate=0.01",
    )
    _texts(tmp_path / "texts.csv")
    summary = pipeline.run(cast, SilentReporter())
    assert summary.accepted, summary.reasons
    row: Any
    (row,) = pipeline.predict(
        cast.settings, cast.recipe.name, _ask(tmp_path, "word3 it_is_tall word5 it_is_dot")
    )
    assert row["label"] == "tall|dot" and 0.5 < row["p_dot"] < 1 and row["p_wide"] < 0.5


def test_a_label_that_is_not_known_breaks_the_contract(tmp_path: Path) -> None:
    cast = _open(tmp_path, "text-classification", "data.source=texts.csv")
    _texts(tmp_path / "texts.csv")
    with (tmp_path / "texts.csv").open("a") as file:
        file.writelines(f"x{number},wide|round,some words {number}\n" for number in range(20))
    with pytest.raises(ContractError, match="label outside the recipe"):
        pipeline.run_to(cast, "validate", SilentReporter())


def _ask(folder: Path, text: str) -> Path:
    path = folder / "ask.jsonl"
    path.write_text(json.dumps({"id": "q", "text": text}) + "\n")
    return path
