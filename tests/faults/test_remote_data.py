"""Data at an address: cut off in the middle, another than promised, not there, without a network."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recaster.core.errors import DataError, RecipeError, ServiceError
from recaster.core.settings import Settings, find_settings
from recaster.data import remote

_CONTENT = bytes(range(256)) * 5000
_HASH = hashlib.sha256(_CONTENT).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    cut_at = 0
    """Bytes after which the connection is dropped; 0: never."""
    ranged = True
    served: list[tuple[str, int]]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "") if self.server.ranged else ""
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if self.path != "/set/texts%20a.txt":
            self.send_error(404)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(_CONTENT) - start))
        self.end_headers()
        body = _CONTENT[start:]
        sent = body[: self.server.cut_at] if self.server.cut_at else body
        self.server.served.append((asked, len(sent)))
        self.wfile.write(sent)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server(("127.0.0.1", 0), _Handler)
    made.served = []
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def _source(server: _Server, name: str = "set/texts%20a.txt", wanted: str = _HASH) -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}#sha256={wanted}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return find_settings(tmp_path, {})


def test_a_cut_download_goes_on(server: _Server, settings: Settings) -> None:
    server.cut_at = 300_000
    with pytest.raises(ServiceError, match="could not be fetched"):
        remote.fetch(_source(server), settings)
    server.cut_at = 0
    path = remote.fetch(_source(server), settings)
    assert path.name == "texts a.txt" and path.read_bytes() == _CONTENT
    assert server.served == [("", 300_000), ("bytes=300000-", len(_CONTENT) - 300_000)]
    remote.fetch(_source(server), settings)
    assert len(server.served) == 2  # it is here


def test_a_server_without_ranges_starts_anew(server: _Server, settings: Settings) -> None:
    server.cut_at, server.ranged = 300_000, False
    with pytest.raises(ServiceError):
        remote.fetch(_source(server), settings)
    server.cut_at = 0
    assert remote.fetch(_source(server), settings).read_bytes() == _CONTENT


def test_other_data_are_refused_and_removed(server: _Server, settings: Settings) -> None:
    with pytest.raises(DataError, match="wanted " + "0" * 64):
        remote.fetch(_source(server, wanted="0" * 64), settings)
    assert [path.name for path in settings.downloads.rglob("*") if path.is_file()] == [".lock"]


def test_what_cannot_be_fetched_says_why(server: _Server, settings: Settings) -> None:
    with pytest.raises(ServiceError, match="Not Found"):
        remote.fetch(_source(server, "nothing.txt"), settings)
    with pytest.raises(ServiceError, match="RECASTER_OFFLINE"):
        remote.fetch(_source(server), replace(settings, offline=True))
    server.shutdown()
    server.server_close()
    with pytest.raises(ServiceError, match="refused"):
        remote.fetch(_source(server), settings)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("https://example.org/set.txt", "must name its checksum"),
        ("https://example.org/#sha256=" + "0" * 64, "must name its checksum"),
        ("http://example.org/set.txt#sha256=" + "0" * 64, "https only"),
    ],
)
def test_unsafe_addresses_are_refused(source: str, word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        remote.wanted_hash(source)


def _given(server: _Server, folder: Path, *, path: str = "set/texts%20a.txt", after: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    address = f"http://127.0.0.1:{server.server_address[1]}/{path}{after}"
    return remote.fetch_given(address, folder, offline=False)


def test_what_is_given_by_address_is_fetched_as_it_is(server: _Server, tmp_path: Path) -> None:
    found = _given(server, tmp_path)
    assert found == tmp_path / "texts a.txt" and found.read_bytes() == _CONTENT
    assert _given(server, tmp_path, after=f"#sha256={_HASH}").read_bytes() == _CONTENT


def test_what_is_given_by_address_and_is_not_right_is_named(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"sha256 {_HASH}, wanted 00"):
        _given(server, tmp_path, after=f"#sha256={'0' * 64}")
    with pytest.raises(ServiceError, match="could not be fetched"):
        _given(server, tmp_path, path="nowhere.txt")
    server.cut_at = 1000
    with pytest.raises(ServiceError, match="bytes are missing"):
        _given(server, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(RecipeError, match="https only"):
        remote.fetch_given("http://example.org/a.png", tmp_path, offline=False)
    with pytest.raises(ServiceError, match="RECASTER_OFFLINE"):
        remote.fetch_given("https://example.org/a.png", tmp_path, offline=True)
