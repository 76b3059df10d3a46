"""A rank's deliberate error, left in the run directory for the process that started the ranks.

failure.json    {"kind": "DivergedError", "what": …, "where": …, "value": …, "repair": …}
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from recaster.core import errors
from recaster.core.files import read_json, write_json
from recaster.distributed.elastic import FAILURE


def leave_failure(run_dir: Path, error: errors.RecasterError) -> None:
    """Write `error` where the parent finds it, and to standard error."""
    failure = {
        "kind": type(error).__name__,
        "what": error.what,
        "where": error.where,
        "value": None if error.value is None else str(error.value),
        "repair": error.repair,
    }
    with suppress(errors.StorageError):  # no room for it: the parent sees that for itself
        write_json(run_dir / FAILURE, failure)
    sys.stderr.write(f"{error}\n")


def raise_failure(run_dir: Path) -> None:
    """Raise the error that a rank left, if one did."""
    if (run_dir / FAILURE).exists():
        failure = read_json(run_dir / FAILURE)
        kind = getattr(errors, failure["kind"])
        raise kind(failure["what"], where=failure["where"], value=failure["value"], repair=failure["repair"])
