"""A chat model's policy in its folder: the rules in preprocessing.json, and the code that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.exporting.modeling_source import compose_source

if TYPE_CHECKING:
    from recaster.recipe.schema import Recipe

SOURCE = "policy.py"


def write_policy(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Write the code that keeps a recipe's policy into `folder`, if it declares one.

    Returns:
        What preprocessing.json says of it.
    """
    from recaster.models import reply_policy

    if recipe.policy is None:
        return {}
    (folder / SOURCE).write_text(compose_source(Path(reply_policy.__file__)), encoding="utf-8")
    return {"policy": recipe.policy.model_dump()}
