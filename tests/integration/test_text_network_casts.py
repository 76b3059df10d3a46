"""Convolutional and recurrent text classifiers from raw texts to answers elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.synthetic import make_requests
from recaster.pipeline.export_verbs import export_model
from tests.conftest import ROOT

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

    from recaster.serving import pyfunc_text

    served = pyfunc_text.TextClassifier()
    served.load_context(SimpleNamespace(artifacts={"model": str(artifact)}))  # type: ignore[arg-type]
    records = {record.id: record.text for record in make_requests()}
    prepared = pipeline.run_to(cast, "prepare", SilentReporter()).path
    ids = read_json(prepared / "test.ids.json")
    frame: Any = served.predict(None, pd.DataFrame({"text": [records[one] for one in ids]}))  # type: ignore[arg-type]
    wanted = np.load(evaluated.path / "predictions.npy")
    np.testing.assert_allclose(frame.filter(like="p_").to_numpy(), wanted, atol=1e-5)

    exported = export_model(
        cast.settings,
        str(artifact),
        tmp_path / "onnx",
        form="onnx",
        int8=False,
        adapter_only=False,
        base=None,
        reporter=SilentReporter(),
    )
    assert exported["difference"]["float32"]["largest"]["logits"] < 1e-4
