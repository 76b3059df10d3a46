"""A detector of the DETR family from fresh weights to boxes, and further with LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]
_LIKE = (
    "train.loss.name=set-prediction",
    "train.optimizer.learning_rate=0.001",
    "train.max_gradient_norm=0.5",
    "model.width=64",
)


def test_it_learns_answers_and_goes_on_with_lora(project: Path) -> None:
    recipe = project / "recipes" / "object-detection" / "tiny.yaml"
    bar = "gate.bars=[{metric: ap50, min: 0.6}]"
    fresh = ("name=fresh", "model.base=scratch:rt-detr-tiny", "train.epochs=30", bar)
    cast = pipeline.open_cast(recipe, [*_LIKE, *fresh])
    assert pipeline.run(cast, SilentReporter()).accepted
    artifact = pipeline.run_to(cast, "export", SilentReporter()).path
    assert read_json(artifact / "config.json")["model_type"] == "rt_detr"
    more = ("name=more", "model.base=models:/fresh@champion", "customize.method=lora", "train.epochs=1")
    tuned = pipeline.open_cast(recipe, [*_LIKE, *more, bar])
    summary = pipeline.run(tuned, SilentReporter())
    assert summary.accepted
    assert (pipeline.run_to(tuned, "export", SilentReporter()).path / "adapter").is_dir()
