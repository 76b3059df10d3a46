"""Start the ranks of one training run with torch's elastic launcher, and end with the parent.

python -m recaster.distributed.launch --ranks 2 --max-restarts 3 --threads 1 RUN_DIR
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from recaster.distributed.parent_death import die_with_parent


def main() -> int:
    """Run `python -m recaster.training RUN_DIR` on every rank; restart all when one is lost."""
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--max-restarts", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("run_dir", type=Path)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    # With the shared store a restart may read the dead attempt's addresses and burn restarts.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    return _launch(arguments.ranks, arguments.max_restarts, arguments.run_dir)


def _launch(ranks: int, max_restarts: int, run_dir: Path) -> int:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=run_dir.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=None),
        local_addr="127.0.0.1",
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", "recaster.training", str(run_dir))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.stderr.write(f"rank {failure.global_rank} ended with exit code {failure.exitcode}\n")
        return 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
