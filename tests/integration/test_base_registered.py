"""A registered model as the base of another: found by alias or version, kept, and not asked for again."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.pipeline.fetched_bases import fetch_base, find_fetched


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_registered_model_becomes_a_base(project: Path) -> None:
    cast = pipeline.open_cast(project / "recipes" / "image-classification" / "tiny.yaml")
    settings, name = cast.settings, cast.recipe.name
    with pytest.raises(RecipeError, match="no such model, version or alias"):
        fetch_base(settings, f"models:/{name}@champion", licence="MIT", reporter=SilentReporter())
    summary = pipeline.run(cast, SilentReporter())
    assert summary.champion == "1"
    assert find_fetched(settings, f"models:/{name}@champion", licence="MIT") is None
    done = fetch_base(settings, f"models:/{name}@champion", licence="MIT", reporter=SilentReporter())
    facts = read_json(done.path / "base.json")
    assert (facts["kind"], facts["reference"], facts["licence"]) == ("torch", f"models:/{name}/1", "MIT")
    assert not list(done.path.rglob("*.py")), "its code stays behind"
    (trained,) = (settings.steps / "train").glob("*/manifest.json")
    weights = trained.parent / "weights.safetensors"
    same = load_file(done.path / "model.safetensors"), load_file(weights)
    assert same[0].keys() == same[1].keys()
    assert all((same[0][key] == same[1][key]).all() for key in same[0])
    by_number = find_fetched(settings, f"models:/{name}/1", licence="MIT")
    assert by_number is not None and by_number.path == done.path
