"""The licence gate: what a model's licence is, and whether a recipe accepts it; before any fetching."""

from __future__ import annotations

import re
from collections.abc import Sequence

from recaster.bases.catalogue import find_known
from recaster.bases.hub import read_listing
from recaster.bases.reference import Reference
from recaster.core.errors import RecipeError, ServiceError
from recaster.core.settings import Settings

_ALTERNATIVES = re.compile(r"\s+OR\s+", re.IGNORECASE)
_TOGETHER = re.compile(r"\s+AND\s+", re.IGNORECASE)


def read_licence(reference: Reference, *, stated: str | None, settings: Settings) -> str:
    """The licence of the weights: of the catalogue, else of the hub's model card, else as stated.

    The hub is asked once; the answer is kept with the commit.

    Args:
        stated: what the recipe says.

    Raises:
        RecipeError: nobody says, or the recipe says otherwise than the publisher.
        ServiceError: the hub does not answer, and the recipe does not say.
    """
    found = _published(reference, stated, settings)
    if found is None and stated is None:
        raise RecipeError(
            "The base model's licence is unknown.",
            where="model.licence",
            value=reference.text,
            repair="read it at the model's source, and state it as model.licence (an SPDX identifier such "
            "as Apache-2.0)",
        )
    if found and stated and found.casefold() != stated.casefold():
        raise RecipeError(
            "The recipe states another licence than the base model's publisher.",
            where="model.licence",
            value=f"{stated}; published: {found}",
            repair="remove model.licence, or correct it",
        )
    return found or str(stated)


def _published(reference: Reference, stated: str | None, settings: Settings) -> str | None:
    if known := find_known(reference.text):
        return known.licence
    if reference.kind != "hf":
        return None
    try:
        return read_listing(reference, downloads=settings.downloads, offline=settings.offline).licence
    except ServiceError:
        if stated is None:
            raise
        return None


def check_licence(licence: str, accepted: Sequence[str], *, of: str, where: str) -> None:
    """Refuse what is `of` a licence that is not accepted.

    SPDX identifiers, compared without case; of `A OR B` one must be accepted, of `A AND B` both.

    Args:
        of: what the licence is of, for the message.
        where: which key or file said so.

    Raises:
        RecipeError: names the licence and those that are accepted.
    """
    known = {name.casefold() for name in accepted}
    # With brackets the split below would read another meaning: then only the whole text counts.
    plain = "(" not in licence
    for choice in _ALTERNATIVES.split(licence.strip()) if plain else [licence.strip()]:
        parts = _TOGETHER.split(choice) if plain else [choice]
        if all(part.casefold() in known for part in parts):
            return
    raise RecipeError(
        f"The licence of {of} is not accepted; nothing was fetched.",
        where=where,
        value=f"{licence}; accepted: {', '.join(accepted) or 'none'}",
        repair="use another, or add its licence to accept_licences when its terms suit you",
    )
