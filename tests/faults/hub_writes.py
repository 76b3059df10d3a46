"""A model hub on loopback that takes commits as huggingface_hub sends them, and keeps what it was sent.

POST /api/repos/create
POST /api/models/ORG/NAME/preupload/main  which files are small and which are large
POST /ORG/NAME.git/info/lfs/objects/batch where large files go                         PUT /lfs/SHA256
POST /api/models/ORG/NAME/commit/main     JSON lines: header, files in base64, references to large files
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_TOKEN = "Bearer right"


class WritableHub:
    """What it was sent, and how it fails."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.private: bool | None = None
        self.message = ""
        self.files: dict[str, bytes] = {}
        """Of the commit, by path."""
        self.large: dict[str, bytes] = {}
        """By sha256."""
        self.down_at: str | None = None
        """A part of a path at which, and after which, it answers 503."""


class _Answer(BaseHTTPRequestHandler):
    hub: WritableHub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        hub, body = self.hub, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.requests.append(f"{self.command} {self.path}")
        if hub.down_at and any(hub.down_at in request for request in hub.requests):
            self._send({}, status=503)
        elif self.command == "PUT":
            hub.large[self.path.rpartition("/")[2]] = body
            self._send({})
        elif self.headers.get("Authorization") != _TOKEN:
            self._send({"error": "Invalid username or password."}, status=401)
        else:
            self._take(json.loads(body) if not self.path.endswith("/commit/main") else body)

    do_PUT = do_POST  # noqa: N815 - http.server looks for this name

    def _take(self, told: Any) -> None:
        hub, path = self.hub, self.path
        if path == "/api/repos/create":
            hub.private = told.get("private") or told.get("visibility") == "private"
            self._send({"url": f"{self._address()}/{told.get('organization', 'me')}/{told['name']}"})
        elif path == "/api/validate-yaml":
            self._send({"warnings": [], "errors": []})
        elif path.endswith("/preupload/main"):
            kinds = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in told["files"]
            ]
            self._send({"files": kinds, "commitOid": None})
        elif path.endswith("/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self._address()}/lfs/{one['oid']}", "header": {}}}}
                for one in told["objects"]
            ]
            self._send({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in told.splitlines()])
        else:
            self._send({"error": path}, status=404)

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        hub = self.hub
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                hub.message = value["summary"]
            elif line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[value["path"]] = hub.large[value["oid"]]
        commit = "a" * 40
        self._send({"commitOid": commit, "commitUrl": f"{self._address()}/{repository}/commit/{commit}"})

    def _address(self) -> str:
        return f"http://{self.headers['Host']}"

    def _send(self, value: dict[str, Any], *, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Say nothing on the terminal."""


@contextmanager
def run_writable_hub(hub: WritableHub) -> Iterator[str]:
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
