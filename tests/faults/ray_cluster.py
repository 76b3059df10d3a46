"""A Ray cluster over hosts (network namespaces): the first is the head and takes no ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.faults.hosts import TMP_OF_HOST, Host
from tests.faults.processes import await_true

_PORT = 6379
_SPACED = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; sys.exit(main())"
_COUNT = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print("CPUS", int(ray.cluster_resources().get("CPU", 0)))
"""


def start_cluster(hosts: list[Host], log: Path) -> str:
    """Start Ray on `hosts`, one CPU each but on the first; return the address when all have joined."""
    head, *others = hosts
    address = f"{head.address}:{_PORT}"
    _start(head, log, "--head", f"--port={_PORT}", "--num-cpus=0", "--include-dashboard=false")
    await_true(lambda: _cpus(head, address) == 0, seconds=60, what="Ray's head answers")
    for host in others:
        _start(host, log, f"--address={address}", "--num-cpus=1")
    await_true(lambda: _cpus(head, address) == len(others), seconds=60, what="all Ray nodes joined")
    return address


def lose_node(host: Host) -> None:
    """kill -9 of the node's raylet; Ray's own rules end what ran under it."""
    for process in host.processes():
        if process.name() == "raylet":
            process.kill()


def _start(host: Host, log: Path, *options: str) -> None:
    host.start(
        [
            *(sys.executable, "-c", _SPACED, "start", "--block", "--disable-usage-stats", *options),
            f"--node-ip-address={host.address}",
            f"--temp-dir={TMP_OF_HOST}/ray",
            "--object-store-memory=100000000",
        ],
        log,
        RAY_USAGE_STATS_ENABLED="0",
    )


def _cpus(host: Host, address: str) -> int:
    done = subprocess.run(
        [*host.prefix, sys.executable, "-c", _COUNT, address], capture_output=True, text=True, check=False
    )
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("CPUS")]
    return int(found[0]) if found else -1
