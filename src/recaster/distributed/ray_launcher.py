"""Start the ranks of one training run on a Ray cluster with Ray Train, and watch them.

python -m recaster.distributed.ray_launcher RUN_DIR       (needs the extra `ray`; nodes share RUN_DIR)

Each Ray worker starts one rank, `python -m recaster.training RUN_DIR`, as a process of its own: the same
rank as under the other launchers. Ray Train starts all workers again, on the nodes that are left, when
a rank ends badly or a node is lost; what was done before is in RUN_DIR's checkpoints.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recaster.core.errors import TrainingError
from recaster.core.files import read_json
from recaster.distributed.elastic import FAILURE, PLAN
from recaster.distributed.network import address_towards
from recaster.distributed.parent_death import die_with_parent
from recaster.distributed.watchdog import Watchdog

_STORAGE = "ray"


def main() -> int:
    """Train RUN_DIR's plan on the cluster; the exit code is 0 when all ranks ended well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--with-parent", action="store_true", help="end when the starting process ends")
    parser.add_argument("run_dir", type=Path)
    arguments = parser.parse_args()
    if arguments.with_parent:
        die_with_parent()
    run_dir = arguments.run_dir.resolve()
    plan = read_json(run_dir / PLAN)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray phones home otherwise
    from recaster.distributed.ray_launcher import fit  # not from __main__, which workers do not have

    return fit(run_dir, plan.get("elastic", plan["distributed"]))


def fit(run_dir: Path, section: Mapping[str, Any]) -> int:
    """Let Ray Train run one worker for each rank, in numbers between the plan's bounds."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    ray.init(address=section["ray_address"], log_to_driver=False)
    ranks, min_ranks = section["ranks"], section["min_ranks"]
    trainer = DataParallelTrainer(
        run_rank,
        train_loop_config={"run_dir": str(run_dir), "section": dict(section)},
        scaling_config=ScalingConfig(
            num_workers=ranks if min_ranks == ranks else (min_ranks, ranks),
            use_gpu=_wants_gpu(section, ray.cluster_resources().get("GPU", 0)),
            resources_per_worker={"CPU": section["threads_per_rank"]},
            placement_strategy="SPREAD" if section["nodes"] > 1 else "PACK",
        ),
        run_config=RunConfig(
            name=_STORAGE,
            storage_path=str(run_dir),
            failure_config=FailureConfig(max_failures=section["max_restarts"]),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        shutil.rmtree(run_dir / _STORAGE, ignore_errors=True)  # its records; nothing of ours is there
        ray.shutdown()
    return int((run_dir / FAILURE).exists())


def run_rank(config: dict[str, Any]) -> None:
    """In a Ray worker: start this worker's rank, and watch it to its end.

    Raises:
        TrainingError: the rank was lost, so that Ray Train starts all of them again.
    """
    from ray.train import get_context
    from ray.train.collective import broadcast_from_rank_zero

    run_dir, section, context = Path(config["run_dir"]), config["section"], get_context()
    rank = context.get_world_rank()
    meeting = broadcast_from_rank_zero(_meeting_place() if rank == 0 else None)
    environment = {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(context.get_world_size()),
        # Ray shows each worker its own GPU only: it is the first and only one to its rank.
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": meeting["address"],
        "MASTER_PORT": str(meeting["port"]),
        "OMP_NUM_THREADS": str(section["threads_per_rank"]),
    }
    with (
        Watchdog(run_dir, timeout_seconds=section["hang_timeout_seconds"], clock=time.monotonic),
        (run_dir / "ranks.log").open("ab") as log,
    ):
        process = subprocess.run(
            [sys.executable, "-u", "-m", "recaster.training", str(run_dir)],
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    if process.returncode and not (run_dir / FAILURE).exists():
        raise TrainingError(
            "A rank was lost.", where=f"rank {rank} on {socket.gethostname()}", value=process.returncode
        )


def _meeting_place() -> dict[str, Any]:
    """This node's address in the cluster, and a free port for the ranks' store."""
    import ray

    head, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    address = address_towards(head, int(port))
    with socket.socket() as probe:
        probe.bind((address, 0))
        return {"address": address, "port": probe.getsockname()[1]}


def _wants_gpu(section: Mapping[str, Any], found: float) -> bool:
    return bool(section["device"] == "cuda" or (section["device"] == "auto" and found >= section["ranks"]))


if __name__ == "__main__":
    sys.exit(main())
