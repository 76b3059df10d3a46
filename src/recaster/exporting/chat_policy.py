"""A chat model's policy in its folder: the rules in preprocessing.json, and the code that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.exporting.modeling_source import compose_source

if TYPE_CHECKING:
    from recaster.recipe.policy import PolicySection

SOURCE = "policy.py"


def write_policy(policy: PolicySection | None, folder: Path) -> dict[str, Any]:
    """Write the code that keeps a policy into `folder`, if one is declared.

    Returns:
        What preprocessing.json says of it.
    """
    from recaster.models import reply_policy

    if policy is None:
        return {}
    (folder / SOURCE).write_text(compose_source(Path(reply_policy.__file__)), encoding="utf-8")
    return {"policy": policy.model_dump()}
