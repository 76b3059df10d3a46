"""A generator from digits to a served model, and from there on to a further one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from recaster import pipeline
from recaster.core.errors import CollapsedError, RecipeError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.registry.versions import find_artifact
from recaster.tracking.runs import open_tracking
from tests.conftest import Command
from tests.e2e.model_server import serve_model

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]
_NAME = "tiny-image-generation"


class _Telling(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def _cast(project: Path, *overrides: str) -> pipeline.Cast:
    return pipeline.open_cast(project / "recipes" / "image-generation" / "tiny.yaml", overrides)


def test_pictures_come_from_the_command_from_mlflow_s_server_and_from_a_further_cast(
    project: Path, command: Command, tmp_path: Path
) -> None:
    cast = _cast(project)
    summary = pipeline.run(cast, SilentReporter())
    assert summary.accepted, summary.reasons
    evaluation = cast.settings.steps / next(one.ref for one in summary.steps if one.step == "evaluate")
    plots = {path.name for path in evaluation.glob("*.png")}
    assert {"samples.png", "between.png", "nearest_training.png", "over_time.png", "training.png"} <= plots

    sheet = tmp_path / "sheet.png"
    asked = ("predict", _NAME, "--samples", "5", "--seed", "9", "--label", "3", "--to", str(sheet), "--json")
    done = command(*asked)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["predictions"]
    assert [(row["seed"], row["label"]) for row in rows] == [(9 + n, "3") for n in range(5)]
    drawn = np.asarray(Image.open(sheet))
    assert drawn.shape == (16, 24)  # three beside each other, two below
    wrong = command("predict", _NAME, "--label", "ten")
    assert wrong.returncode == 2 and "ten" in wrong.stderr and "0, 1, 2" in wrong.stderr
    records = command("predict", _NAME, str(sheet))
    assert records.returncode == 2 and "takes no records" in records.stderr

    body = {"dataframe_records": [{"seed": 9 + n, "label": "3"} for n in range(5)]}
    with serve_model(project, f"models:/{_NAME}@champion", tmp_path) as ask:
        served = np.asarray(ask(body))
    assert served.shape == (5, 8, 8, 1) and served.min() >= 0 and served.max() <= 16
    tiles = drawn.reshape(2, 8, 3, 8).transpose(0, 2, 1, 3).reshape(6, 8, 8)[:5]
    np.testing.assert_allclose(tiles / 255 * 16, served[..., 0], atol=16 / 255)

    client = open_tracking(cast.settings)
    card = (find_artifact(client, _NAME, "champion") / "README.md").read_text()
    assert "Its pictures are made up" in card and "modeling.build_model" in card

    _check_further(project)


def _check_further(project: Path) -> None:
    """From the champion, with its discriminator, whose first layers are kept."""
    told = _Telling()
    further = _cast(
        project,
        f"model.base=models:/{_NAME}@champion",
        "train.epochs=2",
        "train.freeze=['discriminator.stages.*']",
        "name=further",
    )
    summary = pipeline.run(further, told)
    assert any("loaded" in line and "re-initialised" in line for line in told.said), told.said
    assert not any("discriminator.decide" in line for line in told.said), "the discriminator came along"
    steps = {step.step: further.settings.steps / step.ref for step in summary.steps}
    metrics: dict[str, Any] = read_json(steps["evaluate"] / "metrics.json")
    assert metrics["untuned"]["frechet_distance"]["value"] < 3.0  # the base's own


def test_a_collapse_stops_the_cast_with_its_reason(project: Path) -> None:
    """A generator whose rate is far too high makes one picture for ever."""
    cast = _cast(
        project,
        "train.optimizer.learning_rate=5.0",
        "train.adversary.collapse_validations=2",
        "train.epochs=20",
        "train.ema_decay=0.1",
    )
    with pytest.raises(CollapsedError, match="no near copies"):
        pipeline.run_to(cast, "train", SilentReporter())


def test_an_encoder_of_one_s_own_judges_the_pictures(project: Path) -> None:
    classifier = pipeline.open_cast(
        project / "recipes" / "image-classification" / "tiny.yaml",
        ["train.epochs=1", "gate.bars=[{metric: accuracy, min: 0.01}]"],
    )
    assert pipeline.run(classifier, SilentReporter()).accepted
    cast = _cast(project, "evaluate.encoder=models:/tiny-image-classification@champion", "train.epochs=1")
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    assert np.load(evaluated.path / "targets.npy").shape[1] == 1 + 2 * 8  # small-cnn's last channels
    told = read_json(evaluated.path / "metrics.json")
    real, gaussian = (told["baselines"][name]["frechet_distance"] for name in ("real", "gaussian"))
    assert real < gaussian < told["metrics"]["frechet_distance"]["value"]
    with pytest.raises(RecipeError, match="accept_licences"):
        pipeline.run_to(
            _cast(project, "evaluate.encoder=path:elsewhere", "evaluate.encoder_licence=MIT"),
            "evaluate",
            SilentReporter(),
        )


def test_a_classifier_of_one_s_own_is_the_discriminator_s_eyes(project: Path) -> None:
    """Checked, trained, promoted; the card names it, the artifact leaves it out, a further cast goes on."""
    classifier = pipeline.open_cast(project / "recipes" / "image-classification" / "tiny.yaml")
    assert pipeline.run(classifier, SilentReporter()).accepted
    eyes = "train.adversary.encoder=models:/tiny-image-classification@champion"
    quick = ("train.epochs=2", "gate.bars=[{metric: frechet_distance, max: 1000.0}]")
    cast = _cast(project, eyes, *quick)
    assert pipeline.check(cast, SilentReporter())["forecast"]
    summary = pipeline.run(cast, SilentReporter())
    assert summary.accepted, summary.reasons
    client = open_tracking(cast.settings)
    artifact = find_artifact(client, _NAME, "champion")
    assert "discriminator's encoder" in (artifact / "README.md").read_text()
    kept = set(load_file(artifact / "discriminator.safetensors"))
    assert any(name.startswith("critics.") for name in kept)
    assert not any(name.startswith("pyramid._network") for name in kept)
    told = _Telling()
    further = _cast(project, eyes, *quick, f"model.base=models:/{_NAME}@champion", "train.seed=2")
    pipeline.run_to(further, "train", told)
    (line,) = [line for line in told.said if "loaded" in line and "tensors" in line]
    assert "re-initialised" not in line or "augmentation" in line
