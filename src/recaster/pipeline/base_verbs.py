"""The base verb: the open models that a recipe names, and what the catalogue says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recaster.bases.catalogue import KnownBase, find_known, read_catalogue, resolve_base
from recaster.core.errors import RecipeError
from recaster.core.progress import Reporter
from recaster.core.settings import Settings
from recaster.core.steps import StepResult
from recaster.pipeline.fetched_bases import fetch_base, find_fetched
from recaster.pipeline.open_cast import Cast
from recaster.pipeline.vector_verbs import fetch_vectors


def fetch_cast_base(cast: Cast, reporter: Reporter) -> StepResult | None:
    """The recipe's base model, licence checked first; None for one with fresh weights.

    The model that its method learns from, those that its evaluation compares or judges by, and its word
    vectors are fetched too.
    """
    model, accepted = cast.recipe.model, cast.recipe.accept_licences
    for key, text, licence in _list_helpers(cast):
        fetch_base(cast.settings, text, licence=licence, accepted=accepted, reporter=reporter, key=key)
    fetch_vectors(cast, reporter)
    if model.from_scratch:
        return None
    return fetch_base(cast.settings, model.base, licence=model.licence, accepted=accepted, reporter=reporter)


def _list_helpers(cast: Cast) -> Iterator[tuple[str, str, str | None]]:
    """Key, reference and stated licence of each open model that the recipe names beside its base."""
    distil, evaluate = cast.recipe.customize.distil, cast.recipe.evaluate
    adversary = cast.recipe.train.adversary
    if distil:
        yield "customize.distil.teacher", distil.teacher, distil.teacher_licence
    if evaluate.encoder:
        yield "evaluate.encoder", evaluate.encoder, evaluate.encoder_licence
    if adversary.encoder:
        yield "train.adversary.encoder", adversary.encoder, adversary.encoder_licence
    if evaluate.judge:
        yield "evaluate.judge", evaluate.judge, evaluate.judge_licence


def find_base(cast: Cast, *, needed: bool = True) -> StepResult | None:
    """The recipe's fetched base model; None for one with fresh weights.

    Args:
        needed: whether it is an error when it was not fetched yet.

    Raises:
        RecipeError: it was not fetched yet.
    """
    model = cast.recipe.model
    if model.from_scratch:
        return None
    return _find(cast, model.base, model.licence, of="base model", where="model.base", needed=needed)


def find_teacher(cast: Cast, *, needed: bool = True) -> StepResult | None:
    """The fetched model that the recipe's method learns from; None for a method without one.

    Args, Raises: see `find_base`.
    """
    section = cast.recipe.customize.distil
    if section is None:
        return None
    where = "customize.distil.teacher"
    return _find(cast, section.teacher, section.teacher_licence, of="teacher", where=where, needed=needed)


def find_encoder(cast: Cast, *, needed: bool = True) -> StepResult | None:
    """The fetched network by whose features generated pictures are compared; None where none is named.

    Args, Raises: see `find_base`.
    """
    section = cast.recipe.evaluate
    if section.encoder is None:
        return None
    where = "evaluate.encoder"
    return _find(cast, section.encoder, section.encoder_licence, of="encoder", where=where, needed=needed)


def find_critic(cast: Cast, *, needed: bool = True) -> StepResult | None:
    """The fetched network through whose features a discriminator sees; None where none is named.

    Args, Raises: see `find_base`.
    """
    section = cast.recipe.train.adversary
    if section.encoder is None:
        return None
    where = "train.adversary.encoder"
    return _find(cast, section.encoder, section.encoder_licence, of="encoder", where=where, needed=needed)


def find_judge(cast: Cast, *, needed: bool = True) -> StepResult | None:
    """The fetched model that judges replies, the one that is named or else the base; None without either.

    Args, Raises: see `find_base`.
    """
    section = cast.recipe.evaluate
    if section.judge is None:
        return find_base(cast, needed=needed)
    where = "evaluate.judge"
    return _find(cast, section.judge, section.judge_licence, of="judge", where=where, needed=needed)


def _find(
    cast: Cast, text: str, licence: str | None, *, of: str, where: str, needed: bool
) -> StepResult | None:
    found = find_fetched(cast.settings, text, licence=licence)
    if found is None and needed:
        raise RecipeError(
            f"The {of} was not fetched yet.",
            where=where,
            value=text,
            repair=f"recaster models fetch {text}",
        )
    return found


def list_bases(settings: Settings) -> list[dict[str, Any]]:
    """What the catalogue has, and what of it is fetched here."""
    return [_describe(settings, known) for known in read_catalogue()]


def show_base(settings: Settings, text: str) -> dict[str, Any]:
    """What is known of a base model of the catalogue.

    Raises:
        RecipeError: the catalogue does not have it.
    """
    if known := find_known(text):
        return _describe(settings, known)
    reference = resolve_base(text)  # raises for a misspelt name
    raise RecipeError(
        "The catalogue does not have this model.",
        where="model reference",
        value=reference.text,
        repair=f"`recaster models fetch {reference.text}` says what it is",
    )


def _describe(settings: Settings, known: KnownBase) -> dict[str, Any]:
    found = find_fetched(settings, known.reference.text, licence=None)
    return {
        "name": known.name,
        "title": known.title,
        "parameters": known.parameters,
        "licence": known.licence,
        "reference": known.reference.text,
        "sha256": known.reference.sha256,
        "kind": known.kind,
        "workloads": list(known.workloads),
        "bytes": known.bytes,
        "page": known.page,
        "cached": str(found.path) if found else None,
    }
