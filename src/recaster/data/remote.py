"""Data at a public address, fetched once and held to its checksum.

https://example.org/sst2/train.txt#sha256=71c0…   →   DOWNLOADS/data/71c0…/train.txt
"""

from __future__ import annotations

import hashlib
import http.client
import mimetypes
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from recaster.core.errors import DataError, RecipeError, ServiceError
from recaster.core.files import storage_errors
from recaster.core.hashing import hash_file
from recaster.core.locks import hold_lock
from recaster.core.settings import Settings

_FORM = re.compile(r"(https?://[^#]+)#sha256=([0-9a-f]{64})")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_PIECE_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30
_WAIT_SECONDS = 24 * 3600.0
_MOST_GIVEN = 1 << 28
"""Bytes of what is fetched without a checksum."""


def is_remote(source: str) -> bool:
    """Whether a source is an address."""
    return source.startswith(("http://", "https://"))


def wanted_hash(source: str) -> str:
    """The checksum that an address names: what the data are, without fetching them.

    Raises:
        RecipeError: there is none, or the address is not safe.
    """
    return _parse(source)[1]


def fetch(source: str, settings: Settings) -> Path:
    """The file behind an address; a download that was cut off goes on from where it was.

    Raises:
        RecipeError: the address is malformed.
        ServiceError: it is not here yet, and its server does not answer, or nothing may be fetched.
        DataError: the file is another than the checksum says; it is removed.
    """
    address, wanted = _parse(source)
    folder = settings.downloads / "data" / wanted
    path = folder / Path(unquote(urlsplit(address).path)).name
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / ".lock", name=address, wait_seconds=_WAIT_SECONDS, on_wait=lambda _: None):
        if path.exists():
            return path
        if settings.offline:
            raise ServiceError(
                "The data are not here yet, and nothing may be fetched.",
                where=address,
                repair=f"unset RECASTER_OFFLINE, or put the file at {path}",
            )
        part = path.with_name(path.name + ".part")
        _download(address, part)
        if (found := hash_file(part)) != wanted:
            part.unlink()
            raise DataError(
                "The data at this address are not those that the recipe names; they were removed.",
                where=address,
                value=f"sha256 {found}, wanted {wanted}",
                repair="ask its owner what changed, look at the new data, then name their checksum",
            )
        part.replace(path)
    return path


def _parse(source: str) -> tuple[str, str]:
    found = _FORM.fullmatch(source)
    parts = urlsplit(source)
    if found is None or not Path(unquote(parts.path)).name:
        raise RecipeError(
            "A data source at an address must name its checksum.",
            where="recipe key data.source",
            value=source,
            repair="write https://HOST/PATH#sha256=HEX, with the 64 digits that sha256sum prints",
        )
    _check_scheme(source, where="recipe key data.source")
    return found[1], found[2]


def _check_scheme(address: str, *, where: str) -> None:
    parts = urlsplit(address)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise RecipeError(
            "Data are fetched over https only.", where=where, value=address, repair="use the https address"
        )


def fetch_given(source: str, folder: Path, *, offline: bool) -> Path:
    """Write what is at an address now into `folder`; it is held to a checksum only if the address names one.

    The file has the name in the address; without a suffix there, that of the kind which the server tells.

    Raises:
        RecipeError: the address is not safe.
        ServiceError: its server does not answer, or nothing may be fetched.
        DataError: it is larger than 256 MiB, or another than the checksum says.
    """
    address, _, wanted = source.partition("#sha256=")
    _check_scheme(address, where="what is to be predicted")
    if offline:
        raise ServiceError(
            "Nothing may be fetched.", where=address, repair="unset RECASTER_OFFLINE, or name a local file"
        )
    request = urllib.request.Request(address)  # noqa: S310 - https, or this machine
    with (
        _server_errors(address, repair="correct the address, or fetch it yourself and name the file"),
        urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer,  # noqa: S310
    ):
        _check_scheme(answer.url, where=f"where {address} leads")
        content, kind = answer.read(_MOST_GIVEN + 1), answer.headers.get_content_type()
        if answer.length and len(content) <= _MOST_GIVEN:
            raise ConnectionError(f"{answer.length} bytes are missing")
    found = hashlib.sha256(content).hexdigest()
    if len(content) > _MOST_GIVEN or (wanted and found != wanted):
        raise DataError(
            "What is at this address is not what was asked for.",
            where=address,
            value=f"sha256 {found}, wanted {wanted}" if wanted else f"more than {_MOST_GIVEN >> 20} MiB",
            repair="look at it, and name its checksum, or a local file",
        )
    name = Path(unquote(urlsplit(address).path).replace("\0", "")).name.strip(".") or "given"
    path = folder / (name if Path(name).suffix else name + (mimetypes.guess_extension(kind) or ""))
    with storage_errors(path):
        path.write_bytes(content)
    return path


def _download(address: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - https, see _parse
    with _server_errors(address), storage_errors(part):
        try:
            answer = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # the part is whole already
                return
            raise
        with answer, part.open("ab" if answer.status == http.client.PARTIAL_CONTENT else "wb") as file:
            while piece := answer.read(_PIECE_BYTES):
                file.write(piece)
            if answer.length:  # `read` ends quietly where the connection was cut
                raise ConnectionError(f"{answer.length} bytes are missing")


@contextmanager
def _server_errors(
    address: str,
    *,
    repair: str = "try again, it goes on from what has arrived; or --set data.source=PATH of a local copy",
) -> Iterator[None]:
    try:
        yield
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        raise ServiceError(
            "The data could not be fetched.",
            where=address,
            value=getattr(error, "reason", None) or str(error),
            repair=repair,
        ) from error
