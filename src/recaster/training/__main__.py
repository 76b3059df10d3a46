"""`python -m recaster.training RUN_DIR`: one rank, started by the launcher."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from recaster.core.errors import RecasterError, StorageError
from recaster.core.files import write_json
from recaster.distributed.parent_death import die_with_parent


def main() -> int:
    """Train one rank; leave a deliberate error where the parent reads it."""
    die_with_parent()
    from recaster.training.rank import train_rank

    run_dir = Path(sys.argv[1])
    try:
        train_rank(run_dir)
    except RecasterError as error:
        failure = {
            "kind": type(error).__name__,
            "what": error.what,
            "where": error.where,
            "value": None if error.value is None else str(error.value),
            "repair": error.repair,
        }
        with suppress(StorageError):  # no room for it: the parent sees that for itself
            write_json(run_dir / "failure.json", failure)
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
