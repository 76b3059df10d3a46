"""The journal of a run: one JSON object a line, no step missing and none twice.

{"kind": "train", "step": 12, "epoch": 0, "loss": 1.93, "learning_rate": 0.001, …}
{"kind": "validation", "step": 21, "epoch": 0, "loss": 0.71, "accuracy": 0.83, …}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from recaster.core.files import write_bytes

JOURNAL = "journal.jsonl"


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole records of the journal at `path`."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end is half a line
    return [json.loads(line) for line in lines]


def read_validations(path: Path, *, up_to: int) -> list[dict[str, Any]]:
    """The records of validations up to step `up_to`."""
    return [
        record for record in read_journal(path) if record["kind"] == "validation" and record["step"] <= up_to
    ]


def open_journal(path: Path, *, resume_step: int) -> IO[str]:
    """Open the journal for appending, without the records after `resume_step`.

    Those steps are done again, and write the same records again.
    """
    kept = [record for record in read_journal(path) if record["step"] <= resume_step]
    write_bytes(path, "".join(json.dumps(record) + "\n" for record in kept).encode())
    return path.open("a", buffering=1, encoding="utf-8")


def write_record(journal: IO[str], record: dict[str, Any]) -> None:
    """Append one record as a whole line."""
    journal.write(json.dumps(record) + "\n")
