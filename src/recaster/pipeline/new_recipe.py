"""A new recipe, in a project that is there or is made."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from recaster.core.errors import RecipeError
from recaster.core.files import write_bytes
from recaster.core.settings import Settings
from recaster.recipe.load import load_recipe
from recaster.versioning.project import add_name, init_project, list_sections


def new_recipe(settings: Settings, name: str, source: Path | None = None) -> Path:
    """Write `recipes/NAME.yaml` for its owner to edit, and add NAME to the stages of dvc.yaml.

    A folder without a project becomes one (`dvc.yaml`, `.dvc/`).

    Args:
        source: the recipe to copy, comments and all; the digits recipe where there is none.

    Raises:
        RecipeError: the name is not a legal one, the recipe exists already, or `source` is no recipe.
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
    if source:
        load_recipe(source)
        template = source.read_text(encoding="utf-8")
    else:
        template = (files("recaster.recipe") / "template.yaml").read_text(encoding="utf-8")
    init_project(settings.project)
    text = re.sub(r"(?m)^name:.*$", f"name: {name}", template, count=1)
    write_bytes(target, _complete(text, list_sections(settings.project)).encode())
    load_recipe(target)
    add_name(settings.project, name)
    return target


def _complete(text: str, sections: list[str]) -> str:
    """The recipe with those `sections` that it leaves to the defaults written down, empty."""
    missing = [section for section in sections if not re.search(rf"(?m)^{section}:", text)]
    return text + "".join(f"\n{section}: {{}}\n" for section in missing)
