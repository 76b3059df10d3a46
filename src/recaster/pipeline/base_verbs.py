"""The base verb: open models' files in their canonical form, fetched once for all casts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recaster.bases.catalogue import KnownBase, find_known, read_catalogue, resolve_base
from recaster.bases.reference import Reference
from recaster.core.errors import RecipeError
from recaster.core.hashing import hash_directory, hash_sources
from recaster.core.progress import Reporter
from recaster.core.settings import Settings
from recaster.core.steps import StepResult, find_step, run_step
from recaster.pipeline.open_cast import Cast
from recaster.pipeline.pinned_base import find_pinned, pin
from recaster.pipeline.vector_verbs import fetch_vectors

_CODE = (
    "bases.archive",
    "bases.checks",
    "bases.convert",
    "bases.fetch",
    "bases.layouts",
    "bases.safetensors_header",
    "bases.torch_states",
    "bases.weight_files",
)


def fetch_cast_base(cast: Cast, reporter: Reporter) -> StepResult | None:
    """The recipe's base model, licence checked first; None for one with fresh weights.

    The model that its method learns from, those that its evaluation compares or judges by, and its word
    vectors are fetched too.
    """
    model, accepted = cast.recipe.model, cast.recipe.accept_licences
    if distil := cast.recipe.customize.distil:
        fetch_base(
            cast.settings,
            distil.teacher,
            licence=distil.teacher_licence,
            accepted=accepted,
            reporter=reporter,
            key="customize.distil.teacher",
        )
    if encoder := cast.recipe.evaluate.encoder:
        fetch_base(
            cast.settings,
            encoder,
            licence=cast.recipe.evaluate.encoder_licence,
            accepted=accepted,
            reporter=reporter,
            key="evaluate.encoder",
        )
    if judge := cast.recipe.evaluate.judge:
        fetch_base(
            cast.settings,
            judge,
            licence=cast.recipe.evaluate.judge_licence,
            accepted=accepted,
            reporter=reporter,
            key="evaluate.judge",
        )
    fetch_vectors(cast, reporter)
    if model.from_scratch:
        return None
    return fetch_base(cast.settings, model.base, licence=model.licence, accepted=accepted, reporter=reporter)


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


def fetch_base(
    settings: Settings,
    text: str,
    *,
    licence: str | None,
    reporter: Reporter,
    accepted: Sequence[str] | None = None,
    refresh: bool = False,
    key: str = "model.base",
) -> StepResult:
    """The base model of a reference or catalogue name: found finished, or fetched now.

    Args:
        licence: what the recipe says of it; needed where neither catalogue nor publisher does.
        accepted: licences that the recipe accepts; None where nobody restricts them.
        refresh: ask where a branch or alias stands, though it was asked before.
        key: of the recipe, for messages.

    Raises:
        RecipeError: the reference is wrong, its licence unknown or not accepted.
        ServiceError: the model is not cached, and its hub, index or registry does not answer.
        BaseModelError: the files are damaged, unsafe, or not what was named.
    """
    from recaster.bases.licences import check_licence, read_licence

    named = resolve_base(text)
    reference = None if refresh else find_pinned(settings, named)
    reference = reference or pin(settings, named, say=reporter.say)
    inputs = _inputs(reference, licence)
    found = find_step(settings.steps, "fetch", inputs)
    if found:
        told = found.facts["licence"]
    else:
        told = read_licence(reference, stated=licence or _read_card(reference), settings=settings)
    if accepted is not None:
        check_licence(told, accepted, of=f"the base model {text}", where=key)
    if found:
        return found

    def build(work: Path) -> dict[str, Any]:
        from recaster.bases.fetch import fetch_base as fill

        return fill(
            reference,
            work,
            downloads=settings.downloads,
            offline=settings.offline,
            licence=told,
            say=reporter.say,
        )

    return run_step(settings.steps, "fetch", inputs, build, resumable=True, on_wait=reporter.say)


def find_fetched(settings: Settings, text: str, *, licence: str | None) -> StepResult | None:
    """The fetched base model of a reference or catalogue name, or None; asks neither hub nor registry.

    Raises:
        RecipeError: the reference is wrong.
    """
    reference = find_pinned(settings, resolve_base(text))
    return find_step(settings.steps, "fetch", _inputs(reference, licence)) if reference else None


def _read_card(reference: Reference) -> str | None:
    """The licence in the model card of a registered model."""
    if reference.kind != "models" or reference.folder is None:
        return None
    from recaster.exporting.card import read_licence

    return read_licence(reference.folder / "README.md")


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


def _inputs(reference: Reference, licence: str | None) -> dict[str, Any]:
    """The reference, the present content of a folder behind it, and what the recipe says of its licence."""
    content = hash_directory(reference.folder) if reference.folder and reference.folder.is_dir() else None
    return {
        "reference": reference.text,
        "content": content,
        "licence": licence,
        "code": hash_sources(*_CODE),
    }
