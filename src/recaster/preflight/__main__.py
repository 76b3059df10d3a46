"""`python -m recaster.preflight RUN_DIR`: one rank of a probe, in a process of its own."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from recaster.core.errors import RecasterError
from recaster.distributed.network import choose_interface
from recaster.distributed.parent_death import die_with_parent
from recaster.preflight.process_memory import volunteer_for_killing
from recaster.training.failures import leave_failure


def main() -> int:
    """Probe; leave a deliberate error where the parent reads it."""
    started = time.time()
    die_with_parent()
    volunteer_for_killing()
    run_dir = Path(sys.argv[1])
    try:
        choose_interface(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        from recaster.preflight.probe import probe_rank

        probe_rank(run_dir, started=started)
    except RecasterError as error:
        leave_failure(run_dir, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
