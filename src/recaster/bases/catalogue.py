"""The registry of base models: which open weights are known to work, and for what."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from recaster.bases.reference import Reference, parse_reference
from recaster.core.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBase:
    """One entry of catalogue.yaml."""

    name: str
    title: str
    reference: Reference
    kind: str
    """As in base.json: transformers, torch or vectors."""
    parameters: int
    """Learned numbers."""
    licence: str
    """SPDX identifier, of the weights."""
    page: str
    """Where the publisher tells of it."""
    bytes: int
    """Of the base folder, once fetched."""
    workloads: tuple[str, ...]
    """Which can begin with it."""


@cache
def read_catalogue() -> tuple[KnownBase, ...]:
    """All entries, in the file's order."""
    from ruamel.yaml import YAML

    entries: list[dict[str, Any]] = YAML(typ="safe").load(Path(__file__).with_name("catalogue.yaml"))
    return tuple(
        KnownBase(
            **{
                **entry,
                "reference": parse_reference(entry["reference"]),
                "workloads": tuple(entry["workloads"]),
            }
        )
        for entry in entries
    )


def find_known(text: str) -> KnownBase | None:
    """The entry of this name or reference, or None."""
    return next((base for base in read_catalogue() if text in (base.name, base.reference.text)), None)


def resolve_base(text: str) -> Reference:
    """The reference that `text`, a catalogue name or a reference, stands for.

    Raises:
        RecipeError: it is neither; the nearest name is told.
    """
    if known := find_known(text):
        return known.reference
    if ":" in text:
        return parse_reference(text)
    names = [base.name for base in read_catalogue()]
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise RecipeError(
        "There is no base model of this name.",
        where="model name",
        value=text,
        repair=f"{hint}`recaster models list` shows all; for any other give a reference: hf:org/name@commit",
    )
