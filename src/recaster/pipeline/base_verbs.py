"""The base verb: open models' files in their canonical form, fetched once for all casts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from recaster.core.errors import RecipeError
from recaster.core.hashing import hash_directory
from recaster.core.progress import Reporter
from recaster.core.settings import Settings
from recaster.core.steps import StepResult, find_step, run_step
from recaster.pipeline.open_cast import Cast


def fetch_cast_base(cast: Cast, reporter: Reporter) -> StepResult | None:
    """The recipe's base model, licence checked first; None for one with fresh weights.

    The model that its method learns from, where there is one, is fetched too.
    """
    model, distil = cast.recipe.model, cast.recipe.customize.distil
    if distil:
        fetch_base(cast.settings, distil.teacher, licence=distil.teacher_licence, reporter=reporter)
    if model.from_scratch:
        return None
    return fetch_base(cast.settings, model.base, licence=model.licence, reporter=reporter)


def find_base(cast: Cast, *, needed: bool = True) -> StepResult | None:
    """The recipe's fetched base model; None for one with fresh weights.

    Args:
        needed: whether it is an error when it was not fetched yet.

    Raises:
        RecipeError: it was not fetched yet.
    """
    reference = cast.recipe.model.base
    if cast.recipe.model.from_scratch:
        return None
    found = find_step(cast.settings.steps, "fetch", base_inputs(cast.settings, reference))
    if found is None and needed:
        raise RecipeError(
            "The base model was not fetched yet.",
            where="model.base",
            value=reference,
            repair=f"recaster models fetch {reference}",
        )
    return found


def find_teacher(cast: Cast, *, needed: bool = True) -> StepResult | None:
    """The fetched model that the recipe's method learns from; None for a method without one.

    Args:
        needed: whether it is an error when it was not fetched yet.

    Raises:
        RecipeError: it was not fetched yet.
    """
    section = cast.recipe.customize.distil
    if section is None:
        return None
    found = find_step(cast.settings.steps, "fetch", base_inputs(cast.settings, section.teacher))
    if found is None and needed:
        raise RecipeError(
            "The teacher was not fetched yet.",
            where="customize.distil.teacher",
            value=section.teacher,
            repair=f"recaster models fetch {section.teacher}",
        )
    return found


def base_inputs(settings: Settings, reference: str) -> dict[str, Any]:
    """The reference, and the present content of what can change behind it."""
    kind, _, place = reference.partition(":")
    content = hash_directory(settings.project / place) if kind == "path" else None
    if kind == "models":
        name, version = find_registered(settings, reference)
        content = f"{settings.tracking_uri} {name} {version}"
    return {"reference": reference, "content": content}


def find_registered(settings: Settings, reference: str) -> tuple[str, str]:
    """Name and version of `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        RecipeError: it is neither, or no version has this alias.
        ServiceError: MLflow does not answer.
    """
    from recaster.registry.alias import UNKNOWN, read_alias

    place = reference.removeprefix("models:").removeprefix("/")
    name, at, alias = place.partition("@")
    if not at:
        name, _, version = place.partition("/")
        if not version.isdigit():
            raise RecipeError(
                "This reference names no version.",
                where="the registry",
                value=reference,
                repair=f"write models:/{name}@champion or models:/{name}/1",
            )
        return name, version
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
    return name, str(found)


def fetch_base(settings: Settings, reference: str, *, licence: str | None, reporter: Reporter) -> StepResult:
    """The base model of `reference`."""
    kind, _, place = reference.partition(":")

    def build(folder: Path) -> dict[str, Any]:
        reporter.say(f"fetching {reference}")
        if kind == "models":
            _fetch_registered(settings, reference, folder)
        else:
            shutil.copytree(settings.project / place, folder, dirs_exist_ok=True)
        return {"licence": licence, "kind": kind}

    return run_step(settings.steps, "fetch", base_inputs(settings, reference), build)


def _fetch_registered(settings: Settings, reference: str, folder: Path) -> None:
    from recaster.registry.versions import fetch_artifact
    from recaster.tracking.runs import open_tracking, service_errors

    name, version = find_registered(settings, reference)
    with service_errors(settings.tracking_uri):
        fetch_artifact(open_tracking(settings), name, version, folder)
