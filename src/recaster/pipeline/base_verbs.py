"""The base verb: an open model's files in their canonical form, fetched once for all casts."""

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
    """The recipe's base model, licence checked first; None for one with fresh weights."""
    model = cast.recipe.model
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


def base_inputs(settings: Settings, reference: str) -> dict[str, Any]:
    """The reference, and the present content of what can change behind it."""
    kind, _, place = reference.partition(":")
    content = hash_directory(settings.project / place) if kind == "path" else None
    return {"reference": reference, "content": content}


def fetch_base(settings: Settings, reference: str, *, licence: str | None, reporter: Reporter) -> StepResult:
    """The base model of `reference`."""
    kind, _, place = reference.partition(":")

    def build(folder: Path) -> dict[str, Any]:
        reporter.say(f"fetching {reference}")
        shutil.copytree(settings.project / place, folder, dirs_exist_ok=True)
        return {"licence": licence, "kind": kind}

    return run_step(settings.steps, "fetch", base_inputs(settings, reference), build)
