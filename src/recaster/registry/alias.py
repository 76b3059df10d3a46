"""Reading the champion's version without importing MLflow, which takes longer than the answer.

From the embedded store's own table, read only, or from a server's REST interface; both are
MLflow's published schema of aliases (MLflow 2.3 and later).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Final

from recaster.core.settings import Settings


class _Unknown:
    """The registry could not be asked in this short way."""


UNKNOWN: Final = _Unknown()
_QUERY = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'champion'"
_SECONDS = 5.0


def read_champion(settings: Settings, name: str) -> str | _Unknown | None:
    """The champion's version, None when there is none, UNKNOWN when it takes MLflow to tell."""
    uri = settings.tracking_uri
    if settings.local_tracking:
        return _read_table(Path(uri.removeprefix("sqlite:///")), name)
    if uri.startswith("http") and "MLFLOW_TRACKING_TOKEN" not in os.environ:
        return _ask_server(uri, name)
    return UNKNOWN


def _read_table(store: Path, name: str) -> str | _Unknown | None:
    if not store.exists():
        return UNKNOWN
    address = f"file:{urllib.parse.quote(str(store))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            row = database.execute(_QUERY, [name]).fetchone()
    except sqlite3.Error:  # another schema, or a store that is being written: MLflow itself will tell
        return UNKNOWN
    return str(row[0]) if row else None


def _ask_server(uri: str, name: str) -> str | _Unknown | None:
    query = urllib.parse.urlencode({"name": name})
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/registered-models/get?{query}"
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as response:  # noqa: S310 - the configured server
            answer = json.load(response)
    except (urllib.error.URLError, OSError, ValueError, http.client.HTTPException):
        return UNKNOWN
    aliases = answer["registered_model"].get("aliases", [])
    return next((str(entry["version"]) for entry in aliases if entry["alias"] == "champion"), None)
