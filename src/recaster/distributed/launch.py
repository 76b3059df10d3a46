"""Start the ranks of one training run on this host with torch's elastic agent, and watch them.

python -m recaster.distributed.launch RUN_DIR

`RUN_DIR/plan.json` says how many. For `launcher: torchrun` the same command is typed on each host;
they meet at the recipe's `rendezvous`, and share RUN_DIR.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recaster.core.collection import collect_rarely
from recaster.core.files import read_json
from recaster.distributed.elastic import FAILURE, PLAN, rank_counts
from recaster.distributed.network import address_towards, is_local_address
from recaster.distributed.parent_death import die_with_parent
from recaster.distributed.watchdog import Watchdog, newest_step, record_fault

_JOIN_SECONDS = 600
_LAST_CALL_SECONDS = 5


def main() -> int:
    """Run `python -m recaster.training RUN_DIR` on every rank; restart all when one is lost or hangs.

    Where restarts are used up, go on with fewer ranks, down to the plan's `min_ranks`.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--with-parent", action="store_true", help="end when the starting process ends")
    parser.add_argument("run_dir", type=Path)
    arguments = parser.parse_args()
    if arguments.with_parent:
        die_with_parent()
    collect_rarely()
    run_dir = arguments.run_dir.resolve()
    plan = read_json(run_dir / PLAN)
    section = plan.get("elastic", plan["distributed"])
    os.environ["OMP_NUM_THREADS"] = str(section["threads_per_rank"])
    # With the shared store a restart may read the dead attempt's addresses and burn restarts.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with Watchdog(run_dir, timeout_seconds=section["hang_timeout_seconds"], clock=time.monotonic):
        return launch(run_dir, section)


def launch(run_dir: Path, section: Mapping[str, Any]) -> int:
    """Start this host's ranks and wait for their end; the exit code is 0 when all ended well."""
    if section["launcher"] == "torchrun":
        return _run_agent(run_dir, _meeting_hosts(section), section)
    counts, code = rank_counts(section), 1
    for ranks in counts:
        if ranks != counts[0]:
            step, word = newest_step(run_dir), "rank" if ranks == 1 else "ranks"
            text = f"restarts are used up; going on with {ranks} {word} from step {step}."
            sys.stderr.write(f"warning: {text}\n")
            record_fault(run_dir, {"kind": "fewer", "ranks": ranks, "text": text})
        code = _run_agent(run_dir, _alone(ranks), section)
        if code != 1 or (run_dir / FAILURE).exists():  # a deliberate error does not go away with a rank
            return code
    return code


def _alone(ranks: int) -> dict[str, Any]:
    return {
        "min_nodes": 1,
        "max_nodes": 1,
        "nproc_per_node": ranks,
        "rdzv_endpoint": "localhost:0",
        "local_addr": "127.0.0.1",
    }


def _meeting_hosts(section: Mapping[str, Any]) -> dict[str, Any]:
    host, _, port = section["rendezvous"].rpartition(":")
    per_host = section["ranks"] // section["nodes"]
    return {
        "min_nodes": math.ceil(section["min_ranks"] / per_host),
        "max_nodes": section["nodes"],
        "nproc_per_node": per_host,
        "rdzv_endpoint": section["rendezvous"],
        "rdzv_configs": {
            # Torch compares names, which says no on a host that is known by its address only.
            "is_host": is_local_address(host),
            "join_timeout": _JOIN_SECONDS,
            "last_call_timeout": _LAST_CALL_SECONDS,
        },
        "local_addr": address_towards(host, int(port)),
    }


def _run_agent(run_dir: Path, place: Mapping[str, Any], section: Mapping[str, Any]) -> int:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        run_id=run_dir.name,
        rdzv_backend="c10d",
        max_restarts=section["max_restarts"],
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=None),
        **place,
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", "recaster.training", str(run_dir))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.stderr.write(f"rank {rank} ended with exit code {failure.exitcode}\n")
        return 1
    except RendezvousError as error:
        sys.stderr.write(f"the hosts did not meet at {place['rdzv_endpoint']}: {error}\n")
        return 1
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
