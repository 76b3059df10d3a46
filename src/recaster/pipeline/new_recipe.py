"""A new recipe, in a project that is there or is made."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from recaster.core.errors import RecipeError
from recaster.core.files import write_bytes
from recaster.core.settings import Settings
from recaster.recipe.load import load_recipe
from recaster.versioning.project import add_name, init_project


def new_recipe(settings: Settings, name: str) -> Path:
    """Write `recipes/NAME.yaml` for its owner to edit, and add NAME to the stages of dvc.yaml.

    A folder without a project becomes one (`dvc.yaml`, `.dvc/`).

    Raises:
        RecipeError: the name is not a legal one, or the recipe exists already.
    """
    target = settings.project / "recipes" / f"{name}.yaml"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", name):
        raise RecipeError(
            "This is no name for a model.",
            where="NAME",
            value=name,
            repair="use lower-case letters, digits and hyphens, a letter first",
        )
    if target.exists():
        raise RecipeError("The recipe exists already.", where=str(target), repair="choose another name")
    template = (files("recaster.recipe") / "template.yaml").read_text(encoding="utf-8")
    init_project(settings.project)
    write_bytes(target, template.replace("name: digits", f"name: {name}").encode())
    load_recipe(target)
    add_name(settings.project, name)
    return target
