"""Open models' files in their canonical form, fetched once for all casts: the step `fetch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recaster.bases.catalogue import resolve_base
from recaster.bases.reference import Reference
from recaster.core.hashing import hash_directory, hash_sources
from recaster.core.progress import Reporter
from recaster.core.settings import Settings
from recaster.core.steps import StepResult, find_step, run_step
from recaster.pipeline.pinned_base import find_pinned, pin

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


def _inputs(reference: Reference, licence: str | None) -> dict[str, Any]:
    """The reference, the present content of a folder behind it, and what the recipe says of its licence."""
    content = hash_directory(reference.folder) if reference.folder and reference.folder.is_dir() else None
    return {
        "reference": reference.text,
        "content": content,
        "licence": licence,
        "code": hash_sources(*_CODE),
    }
