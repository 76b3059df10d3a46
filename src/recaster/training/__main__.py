"""`python -m recaster.training RUN_DIR`: one rank, started by a launcher (`torchrun` will do)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from recaster.core.collection import collect_rarely
from recaster.core.errors import RecasterError
from recaster.distributed.elastic import FAILURE, fit_plan
from recaster.distributed.heartbeat import heartbeat
from recaster.distributed.network import choose_interface
from recaster.distributed.parent_death import die_with_parent
from recaster.training.failures import leave_failure


def main() -> int:
    """Train one rank; leave a deliberate error where the parent reads it."""
    die_with_parent()
    collect_rarely()
    run_dir = Path(sys.argv[1])
    if (run_dir / FAILURE).exists():  # a restart would only end in the same deliberate error
        return 1
    try:
        with heartbeat(run_dir):
            _train(run_dir)
    except RecasterError as error:
        leave_failure(run_dir, error)
        return 1
    return 0


def _train(run_dir: Path) -> None:
    choose_interface(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    fit_plan(run_dir, ranks=int(os.environ["WORLD_SIZE"]))
    from recaster.training.rank import train_rank

    train_rank(run_dir)


if __name__ == "__main__":
    sys.exit(main())
