"""A model hub on loopback: it answers the paths that huggingface_hub asks, and fails as it is told to.

GET  /api/models/ORG/NAME/revision/REVISION?blobs=true    names, sizes, hashes, the model card's licence
GET  /ORG/NAME/resolve/COMMIT/FILE                        the file, or 302 to /lfs/SHA256 for a large one
GET  /lfs/SHA256                                          whole, or the rest after `Range: bytes=N-`
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_LARGE_BYTES = 1 << 20
_BLOCK = 1 << 16


class Hub:
    """One repository, and what was asked of it."""

    def __init__(self, folder: Path, *, repository: str, commit: str, licence: str | None) -> None:
        self.folder, self.repository, self.commit, self.licence = folder, repository, commit, licence
        self.requests: list[str] = []
        """`GET path`, with the range if one was asked."""
        self.served: dict[str, int] = {}
        """Bytes of each file that left, by name."""
        self.down = False
        """No request is answered: its connection is closed."""
        self.cut_after: int | None = None
        """Bytes of a large file after which the connection is cut; the hub is down from then on."""
        self.flip = False
        """Files leave with one byte changed."""
        self._lock = threading.Lock()

    def listing(self) -> dict[str, Any]:
        """What the API says of the repository."""
        card = {"license": self.licence} if self.licence else {}
        names = sorted(
            path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()
        )
        siblings = [self._describe(name) for name in names]
        names_of_it = {"_id": "0", "id": self.repository, "modelId": self.repository, "sha": self.commit}
        return {
            **names_of_it,
            "private": False,
            "gated": False,
            "tags": [],
            "cardData": card,
            "siblings": siblings,
        }

    def _describe(self, name: str) -> dict[str, Any]:
        content = (self.folder / name).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if len(content) >= _LARGE_BYTES:
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        return entry

    def find_large(self, digest: str) -> str:
        """The large file with this sha256."""
        siblings = self.listing()["siblings"]
        return next(
            str(entry["rfilename"]) for entry in siblings if entry.get("lfs", {}).get("sha256") == digest
        )

    def count(self, name: str, size: int) -> None:
        """Add to what was served."""
        with self._lock:
            self.served[name] = self.served.get(name, 0) + size


class _Answer(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub, asked = self.hub, self.headers.get("Range", "")
        hub.requests.append(f"{self.command} {self.path} {asked}".strip())
        if hub.down:
            self.close_connection = True
            return
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._list(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
            self._resolve(found[3])
        elif found := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            self._send_file(hub.find_large(found[1]), cut=True)
        else:
            self._refuse("EntryNotFound")

    do_HEAD = do_GET  # noqa: N815 - http.server looks for this name

    def _list(self, repository: str, revision: str) -> None:
        if repository != self.hub.repository:
            self._refuse("RepoNotFound")
        elif revision not in ("main", self.hub.commit):
            self._refuse("RevisionNotFound")
        else:
            self._send(json.dumps(self.hub.listing()).encode(), "application/json")

    def _resolve(self, name: str) -> None:
        entry = next((e for e in self.hub.listing()["siblings"] if e["rfilename"] == name), None)
        if entry is None:
            self._refuse("EntryNotFound")
        elif lfs := entry.get("lfs"):
            self.send_response(302)
            self.send_header("Location", f"/lfs/{lfs['sha256']}")
            self.send_header("X-Repo-Commit", self.hub.commit)
            self.send_header("X-Linked-Size", str(lfs["size"]))
            self.send_header("X-Linked-ETag", f'"{lfs["sha256"]}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send_file(name, cut=False)

    def _send_file(self, name: str, *, cut: bool) -> None:
        hub = self.hub
        content = bytearray((hub.folder / name).read_bytes())
        if hub.flip:
            content[len(content) // 2] ^= 1
        begin = 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            begin = int(found[1])
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", hub.commit)
        self.send_header("Accept-Ranges", "bytes")
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(begin, len(content), _BLOCK):
            if cut and hub.cut_after is not None and start >= hub.cut_after:
                hub.down, self.close_connection = True, True
                return
            block = content[start : start + _BLOCK]
            self.wfile.write(block)
            hub.count(name, len(block))

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Say nothing on the terminal."""


@contextmanager
def run_hub(hub: Hub) -> Iterator[str]:
    """Serve `hub` on a free port; yields the address for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
