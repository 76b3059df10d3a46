"""Registered models as folders: the artifact of one version, brought from the registry once.

models:/digits@champion   →   steps/registered/3f2a…   model.safetensors  config.json  README.md  …
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recaster.bases.reference import Reference
from recaster.core.errors import RecipeError
from recaster.core.settings import Settings
from recaster.core.steps import StepResult, find_step, run_step


def fetch_registered(settings: Settings, reference: Reference) -> StepResult:
    """The artifact of `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        RecipeError: no version has this alias.
        ServiceError: MLflow does not answer.
    """
    inputs = _inputs(settings, reference)

    def build(folder: Path) -> dict[str, Any]:
        from recaster.registry.versions import fetch_artifact
        from recaster.tracking.runs import open_tracking, service_errors

        with service_errors(settings.tracking_uri):
            fetch_artifact(open_tracking(settings), inputs["name"], inputs["version"], folder)
        return {"name": inputs["name"], "version": inputs["version"]}

    return run_step(settings.steps, "registered", inputs, build)


def find_registered(settings: Settings, reference: Reference) -> StepResult | None:
    """What `fetch_registered` gave, or None; imports no MLflow where the registry is read without it."""
    return find_step(settings.steps, "registered", _inputs(settings, reference))


def _inputs(settings: Settings, reference: Reference) -> dict[str, Any]:
    name, told = reference.name, reference.revision
    version = told if told.isdigit() else _read_alias(settings, name, told)
    return {"store": settings.tracking_uri, "name": name, "version": version}


def _read_alias(settings: Settings, name: str, alias: str) -> str:
    from recaster.registry.alias import UNKNOWN, read_alias

    found = read_alias(settings, name, alias)
    if found is UNKNOWN:
        from recaster.registry.versions import find_alias
        from recaster.tracking.runs import open_tracking, service_errors

        with service_errors(settings.tracking_uri):
            found = find_alias(open_tracking(settings), name, alias)
    if found is None:
        raise RecipeError(
            "No model version has this alias.",
            where=f"models:/{name}",
            value=alias,
            repair=f"run a cast of {name} first; `recaster history {name}` lists those there were",
        )
    return str(found)
