"""A chat model's policy in its folder: the rules in preprocessing.json, and the code that keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recaster.exporting.adapter_form import ADAPTER
from recaster.exporting.modeling_source import compose_source

if TYPE_CHECKING:
    from recaster.recipe.policy import PolicySection

SOURCE = "policy.py"


def write_policy(policy: PolicySection | None, folder: Path) -> None:
    """Write the code that keeps a policy into `folder`, and into the adapter within, if one is declared."""
    from recaster.models import reply_policy

    if policy is None:
        return
    source = compose_source(Path(reply_policy.__file__))
    for place in (folder, folder / ADAPTER):
        if place.exists():
            (place / SOURCE).write_text(source, encoding="utf-8")
