"""From a reference that can move (a branch, an alias) to one that cannot, with the folder of local files.

HOME/downloads/hub/ORG--NAME/refs/main          the commit that it was when it was last asked
HOME/downloads/registered/NAME/refs/champion    the version, likewise
                              /3/               that version's exported artifact

A cast asks once and stays with the answer, so that it is a function of what it has; `recaster models
fetch` asks again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from recaster.bases.hub import find_commit, read_listing
from recaster.bases.reference import Reference, parse_reference
from recaster.core.errors import RecipeError, ServiceError
from recaster.core.files import commit_directory, write_bytes
from recaster.core.locks import hold_lock
from recaster.core.settings import Settings

_WAIT_SECONDS = 3600.0


def find_pinned(settings: Settings, reference: Reference) -> Reference | None:
    """The pinned reference as far as it is known here; None when hub or registry must be asked."""
    if reference.kind == "path":
        return reference.at(settings.project / reference.name)
    if reference.kind == "hf":
        commit = find_commit(reference, settings.downloads)
        return _at_commit(reference, commit) if commit else None
    if reference.kind == "models":
        ref = _home(settings, reference) / "refs" / reference.revision
        version = ref.read_text() if ref.exists() else reference.revision
        place = _home(settings, reference) / version
        return _at_version(reference, version, place) if place.is_dir() else None
    return reference


def pin(settings: Settings, reference: Reference, *, say: Callable[[str], None]) -> Reference:
    """The pinned reference, its hub or registry asked where a branch or alias stands.

    Raises:
        RecipeError: there is no such model, revision, version or alias.
        ServiceError: hub or registry do not answer.
    """
    if reference.kind == "hf" and not reference.pinned:
        listing = read_listing(
            reference, downloads=settings.downloads, offline=settings.offline, refresh=True
        )
        say(f"{reference.text} is commit {listing.commit}; name that in the recipe to pin it")
        return _at_commit(reference, listing.commit)
    if reference.kind == "models":
        return _bring_registered(settings, reference, say)
    return find_pinned(settings, reference) or reference


def _at_commit(reference: Reference, commit: str) -> Reference:
    return parse_reference(f"hf:{reference.name}@{commit}")


def _at_version(reference: Reference, version: str, place: Path) -> Reference:
    return parse_reference(f"models:/{reference.name}/{version}").at(place)


def _home(settings: Settings, reference: Reference) -> Path:
    return settings.downloads / "registered" / reference.name


def _bring_registered(settings: Settings, reference: Reference, say: Callable[[str], None]) -> Reference:
    from recaster.registry.versions import fetch_artifact, find_version
    from recaster.tracking.runs import open_tracking, service_errors

    home, uri = _home(settings, reference), settings.tracking_uri
    if settings.offline and not settings.local_tracking:
        raise ServiceError(
            "The registered model is not cached, and offline is switched on.",
            where=reference.text,
            value=uri,
            repair="unset RECASTER_OFFLINE, or name a version that was brought before",
        )
    lock = home / ".lock"
    with (
        hold_lock(lock, name=reference.text, wait_seconds=_WAIT_SECONDS, on_wait=say),
        service_errors(uri),
    ):
        client = open_tracking(settings)
        version = find_version(client, reference.name, reference.revision)
        if version is None:
            raise RecipeError(
                "The registry has no such model, version or alias.",
                where=reference.text,
                value=uri,
                repair="`recaster history` lists the versions; or run the cast that makes it first",
            )
        place = home / version
        if not place.is_dir():
            work = home / f".{version}.work"
            shutil.rmtree(work, ignore_errors=True)
            commit_directory(fetch_artifact(client, reference.name, version, work), place)
        if version != reference.revision:
            write_bytes(home / "refs" / reference.revision, version.encode())
    return _at_version(reference, version, place)
