"""From drawn faces to a champion, and from there to a gallery that finds and forgets people."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.progress import SilentReporter
from recaster.data.synthetic_faces import make_faces
from recaster.pipeline.face_verbs import enrol_person, search_gallery
from recaster.serving.gallery import remove
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def _draw(folder: Path) -> None:
    for record in list(make_faces())[:24]:  # three people
        assert record.pixels is not None
        path = folder / f"{record.label}" / f"{record.id[-1]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(record.pixels[:, :, 0]).save(path)


def test_people_are_compared_enrolled_found_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RECASTER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    recipe = tmp_path / "recipes" / "face-recognition" / "tiny.yaml"
    recipe.parent.mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(ROOT / "recipes" / "face-recognition" / "tiny.yaml", recipe)
    cast = pipeline.open_cast(recipe)
    assert pipeline.run(cast, SilentReporter()).accepted
    faces, gallery, name = tmp_path / "faces", tmp_path / "gallery", cast.recipe.name
    _draw(faces)
    settings = cast.settings
    rows = pipeline.predict(settings, name, faces / "person-00")
    assert rows[0]["decision"] == "same" and rows[0]["score"] == pytest.approx(1.0, abs=1e-6)
    assert all(-1 <= row["score"] <= 1 for row in rows)
    asked = faces / "person-01" / "7.png"
    held = asked.rename(tmp_path / "asked.png")
    for person in ("person-00", "person-01", "person-02"):
        enrol_person(settings, name, gallery, person, faces / person)
    (row,) = search_gallery(settings, name, gallery, held, 3)
    assert {match["person"] for match in row["matches"]} == {"person-00", "person-01", "person-02"}
    (known,) = search_gallery(settings, name, gallery, faces / "person-01" / "0.png", 1)
    assert known["matches"][0]["person"] == "person-01" and known["matches"][0]["accepted"]
    remove(gallery, "person-01")
    (row,) = search_gallery(settings, name, gallery, held, 3)
    assert "person-01" not in {match["person"] for match in row["matches"]}
    with pytest.raises(RecipeError, match="no gallery"):
        search_gallery(settings, name, tmp_path / "nowhere", held, 1)
