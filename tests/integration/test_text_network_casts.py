"""Convolutional and recurrent text classifiers from raw texts to answers elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from tests.conftest import ROOT
from tests.integration.text_answers import check_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    "network",
    [
        pytest.param("kim-cnn", marks=pytest.mark.campaign),
        "lstm",
        pytest.param("gru", marks=pytest.mark.campaign),
    ],
)
def test_a_cast_and_its_answers(network: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipes" / "tiny.yaml"
    recipe.parent.mkdir()
    shutil.copy(ROOT / "recipes" / "text-classification" / "tiny.yaml", recipe)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    overrides = (f"model.base=scratch:{network}", "train.epochs=3", "train.optimizer.learning_rate=0.01")
    cast = pipeline.open_cast(recipe, overrides)
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    artifact = pipeline.run_to(cast, "export", SilentReporter()).path
    assert evaluated.facts["metrics"]["accuracy"]["value"] > 0.9  # four labels, told apart by their words
    told = read_json(artifact / "config.json")
    assert (told["architecture"], told["arguments"]["network"]) == ("text_networks", network)
    check_answers(cast, tmp_path / "onnx")
