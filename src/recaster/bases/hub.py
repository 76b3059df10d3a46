"""Models of a Hugging Face hub: one call says what there is, then each file, resumable and checked.

DOWNLOADS/hub/sentence-transformers--all-MiniLM-L6-v2/refs/main           a commit
                                                     /COMMIT/listing.json  names, sizes, hashes, licence
                                                     /COMMIT/files/…       whole and checked
                                                     /COMMIT/partial/…     cut off; the next call goes on

huggingface_hub speaks with the hub; the files are kept by us, because its own cache (2.4) begins a cut
download again from its first byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from recaster.bases.reference import Reference
from recaster.core.errors import BaseModelError, RecasterError, RecipeError, ServiceError, StorageError
from recaster.core.files import free_bytes, read_json, storage_errors, write_bytes, write_json
from recaster.core.locks import hold_lock

_WAIT_SECONDS = 24 * 3600.0
_CHUNK = 1 << 20
_NO_LICENCE = {"", "other", "unknown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file as the hub lists it."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    """Of large files; else empty."""
    git_sha1: str
    """Of small files: git's hash of the blob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a repository holds at one commit."""

    repository: str
    commit: str
    address: str
    """The page of that commit."""
    licence: str | None
    """Of the model card; None where it names none."""
    files: tuple[HubFile, ...]


def find_commit(reference: Reference, downloads: Path) -> str:
    """The commit of `reference`; of a branch the one that it was when it was last asked; empty if never."""
    if reference.pinned:
        return reference.revision
    path = _root(reference, downloads) / "refs" / quote(reference.revision, safe="")
    return path.read_text() if path.exists() else ""


def read_listing(reference: Reference, *, downloads: Path, offline: bool, refresh: bool = False) -> Listing:
    """What the hub has at `reference`: from the cache, else by one call; a branch becomes its commit.

    Args:
        refresh: ask where a branch stands, though it was asked before.

    Raises:
        RecipeError: the hub has no such repository or revision, or wants a token.
        ServiceError: it does not answer, or offline is switched on.
    """
    root = _root(reference, downloads)
    commit = find_commit(reference, downloads)
    again = refresh and not reference.pinned and not offline
    if commit and not again and (root / commit / "listing.json").exists():
        tree = read_json(root / commit / "listing.json")
        return Listing(**{**tree, "files": tuple(HubFile(**entry) for entry in tree["files"])})
    if offline:
        raise _absent(reference, downloads, "offline is switched on (RECASTER_OFFLINE or HF_HUB_OFFLINE)")
    with _hub_errors(reference, downloads):
        listing = _ask(reference)
    write_json(root / listing.commit / "listing.json", asdict(listing))
    if not reference.pinned:
        write_bytes(root / "refs" / quote(reference.revision, safe=""), listing.commit.encode())
    return listing


def download_files(
    reference: Reference,
    listing: Listing,
    names: Sequence[str],
    *,
    downloads: Path,
    offline: bool,
    say: Callable[[str], None],
) -> Path:
    """The folder that holds the files `names`, all whole and checked; what is missing is fetched.

    Raises:
        ServiceError: the hub stopped answering; what came so far is kept, and the next call goes on.
        BaseModelError: a file has another hash than the hub says; it is removed.
        StorageError: the disk does not hold them.
    """
    home = _root(reference, downloads) / listing.commit
    wanted = [file for file in listing.files if file.name in set(names)]
    with hold_lock(home / ".lock", name=listing.repository, wait_seconds=_WAIT_SECONDS, on_wait=say):
        missing = [file for file in wanted if not (home / "files" / file.name).exists()]
        if missing and offline:
            raise _absent(reference, downloads, f"not cached: {', '.join(file.name for file in missing)}")
        _check_room(home, missing)
        for file in missing:
            say(f"downloading {listing.repository}/{file.name}, {file.size / 2**20:.1f} MiB")
            with _hub_errors(reference, downloads), storage_errors(home):
                _download(listing, file, home)
    return home / "files"


def list_cached(downloads: Path) -> list[str]:
    """References of the hub's models that are cached, and how much of them."""
    lines = []
    for path in sorted((downloads / "hub").glob("*/*/listing.json")):
        tree = read_json(path)
        whole = sum((path.parent / "files" / file["name"]).exists() for file in tree["files"])
        lines.append(f"hf:{tree['repository']}@{tree['commit']} ({whole} files)")
    return lines


def _root(reference: Reference, downloads: Path) -> Path:
    return downloads / "hub" / reference.name.replace("/", "--")


def _ask(reference: Reference) -> Listing:
    from huggingface_hub import HfApi, constants

    info = HfApi().model_info(reference.name, revision=reference.revision, files_metadata=True)
    card: Any = info.card_data
    named = (card.license if card else None) or ""
    # Several licences at once: all of them bind.
    licence = " AND ".join(map(str, named)) if isinstance(named, list) else str(named).strip()
    if not info.sha or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise ServiceError(
            "The hub's answer names no commit.",
            where=constants.ENDPOINT,
            value=info.sha,
            repair="check HF_ENDPOINT",
        )
    files = tuple(_read_sibling(sibling) for sibling in info.siblings or ())
    address = f"{constants.ENDPOINT}/{reference.name}/tree/{info.sha}"
    return Listing(
        repository=reference.name,
        commit=info.sha,
        address=address,
        licence=None if licence.lower() in _NO_LICENCE else licence,
        files=tuple(file for file in files if file is not None),
    )


def _read_sibling(sibling: Any) -> HubFile | None:
    """The file's entry; None for a name that would leave its folder."""
    parts = Path(sibling.rfilename).parts
    if not parts or ".." in parts or sibling.rfilename.startswith("/"):
        return None
    return HubFile(
        name=sibling.rfilename,
        size=int(sibling.size or 0),
        sha256=sibling.lfs.sha256 if sibling.lfs else "",
        git_sha1="" if sibling.lfs else str(sibling.blob_id or ""),
    )


def _check_room(home: Path, missing: Sequence[HubFile]) -> None:
    partial = home / "partial"
    here = sum((partial / file.name).stat().st_size for file in missing if (partial / file.name).exists())
    wanted, free = sum(file.size for file in missing) - here, free_bytes(home)
    if wanted > free:
        raise StorageError(
            "The disk does not hold the model.",
            where=str(home),
            value=f"{wanted / 2**20:.0f} MiB needed, {free / 2**20:.0f} MiB free",
            repair="free some space, or set RECASTER_HOME to a folder on a larger disk",
        )


def _download(listing: Listing, file: HubFile, home: Path) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    partial, final = home / "partial" / file.name, home / "files" / file.name
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    with partial.open("ab") as target:
        http_get(
            hf_hub_url(listing.repository, file.name, revision=listing.commit),
            target,
            resume_size=target.tell(),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=file.name,
        )
    _check_hash(listing, file, partial)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(final)


def _check_hash(listing: Listing, file: HubFile, path: Path) -> None:
    wanted = file.sha256 or file.git_sha1
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size)  # noqa: S324 - git's
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        path.unlink()
        raise BaseModelError(
            "The file is not the one that the hub lists; it was removed.",
            where=f"{listing.address}: {file.name}",
            value=f"hash {digest.hexdigest()}, wanted {wanted or '(none listed)'}",
            repair="fetch again; if it stays so, a proxy or mirror in between changes files",
        )


@contextmanager
def _hub_errors(reference: Reference, downloads: Path) -> Iterator[None]:
    """Turn what the hub and the network raise into our errors."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # httpx in its releases 1, httpx2 in 2: the base of its own error is the one it uses.
    transport = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    assert issubclass(transport, Exception)  # noqa: S101 - for the type checker
    try:
        yield
    except RecasterError:
        raise
    except GatedRepoError as error:
        repair = "accept the model's terms on its page, and set HF_TOKEN to a token of that account"
        raise _wrong(reference, "The model is gated.", error, repair) from error
    except RepositoryNotFoundError as error:
        repair = "correct the name; for a private model set HF_TOKEN"
        raise _wrong(reference, "The hub has no such model.", error, repair) from error
    except (RevisionNotFoundError, RemoteEntryNotFoundError) as error:
        repair = "take a commit from the model's page, Files and versions, History"
        raise _wrong(reference, "The hub's model has no such revision.", error, repair) from error
    except (transport, OfflineModeIsEnabled) as error:
        raise _absent(reference, downloads, _first_line(error)) from error
    except OSError as error:
        if error.errno is not None:  # the disk's, not the network's
            raise
        raise _absent(reference, downloads, _first_line(error)) from error


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def _wrong(reference: Reference, what: str, error: Exception, repair: str) -> RecipeError:
    return RecipeError(what, where=reference.text, value=_first_line(error), repair=repair)


def _absent(reference: Reference, downloads: Path, reason: str) -> ServiceError:
    cached = ", ".join(list_cached(downloads)) or "nothing"
    return ServiceError(
        "The model is not cached whole, and cannot be fetched.",
        where=reference.text,
        value=f"{reason}; cached: {cached}",
        repair="run the same command when the hub answers: it goes on where it was; or run `recaster models "
        f"fetch {reference.text}` where there is a network and copy its RECASTER_HOME/downloads/hub to "
        f"{downloads / 'hub'}",
    )
