"""The verbs of a gallery: enrol, search, and what needs no model, remove, index and check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.core.hashing import hash_file
from recaster.core.settings import Settings
from recaster.pipeline.production import predict

if TYPE_CHECKING:
    from recaster.serving.gallery import Vectors

_VERIFICATION = "verification.json"


def enrol_person(
    settings: Settings, name: str, gallery: Path, person: str, source: Path, *, alias: str = "champion"
) -> dict[str, Any]:
    """Add the faces in `source` to `gallery` as those of `person`.

    Raises:
        RecipeError: the model is not of face-recognition, or the gallery is of another model.
        DataError: a picture cannot be read, or is enrolled already.
    """
    from recaster.serving.gallery import enrol

    model, about = _find_model(settings, name, alias)
    _, vectors = _embed(settings, name, source, alias)
    found = enrol(gallery, person, vectors, model=model, threshold=about["threshold"])
    return {"gallery": str(gallery), "person": person, "enrolled": len(vectors), "faces": found.faces}


def search_gallery(
    settings: Settings,
    name: str,
    gallery: Path,
    source: Path,
    people: int,
    *,
    approximate: bool = False,
    alias: str = "champion",
) -> list[dict[str, Any]]:
    """The nearest enrolled people of each picture in `source`, the nearest first.

    Raises:
        RecipeError: see `enrol_person`; there is no index to search approximately.
        DataError: a picture cannot be read.
    """
    from recaster.serving.gallery import Gallery, check_model

    model, _ = _find_model(settings, name, alias)
    opened = Gallery(gallery)
    check_model(opened, model)
    ids, vectors = _embed(settings, name, source, alias)
    found = opened.search(vectors, people=people, approximate=approximate)
    return [
        {"id": one, "matches": [asdict(match) for match in matches]}
        for one, matches in zip(ids, found, strict=True)
    ]


def _find_model(settings: Settings, name: str, alias: str) -> tuple[str, dict[str, Any]]:
    """sha256 of the weights, and how the artifact compares."""
    from recaster.registry.versions import find_artifact
    from recaster.tracking.runs import open_tracking, service_errors

    with service_errors(settings.tracking_uri):
        artifact = find_artifact(open_tracking(settings), name, alias)
    if not (artifact / _VERIFICATION).exists():
        raise RecipeError(
            "This model does not compare faces.",
            where=name,
            value=f"it has no {_VERIFICATION}",
            repair="name a model of the workload face-recognition",
        )
    return hash_file(artifact / "model.safetensors"), read_json(artifact / _VERIFICATION)


def _embed(settings: Settings, name: str, source: Path, alias: str) -> tuple[list[str], Vectors]:
    import numpy as np

    rows = predict(settings, name, source, alias=alias)
    width = sum(key.startswith("e_") for key in rows[0])
    vectors = np.array([[row[f"e_{number}"] for number in range(width)] for row in rows], dtype=np.float32)
    return [row["id"] for row in rows], vectors
