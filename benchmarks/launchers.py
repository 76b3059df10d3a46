"""Do several hosts train the model that one host trains, and what happens when one is lost?

Hosts are network namespaces of this machine, each with an address, a name and a /tmp of its own,
on one bridge; they share the run directory. Needs the right to make namespaces, and the extra `ray`.

    python -m benchmarks.launchers
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.record import target, write_result
from recaster.core.files import read_json
from recaster.distributed.heartbeat import Beat, read_beats
from recaster.training.journal import read_journal
from tests.conftest import ROOT
from tests.faults.hosts import Host, joined_hosts
from tests.faults.processes import await_true
from tests.faults.ray_cluster import lose_node, start_cluster
from tests.faults.training_runs import (
    SLOWED,
    await_journal,
    make_plan,
    read_faults,
    start_training,
    trained_steps,
    weights_of,
)

_AT = 40
"""The step at which something is done to a host."""


class Bench:
    """The hosts, the single-host run to compare with, and the rows so far."""

    def __init__(self, folder: Path, hosts: list[Host]) -> None:
        self.folder, self.hosts = folder, hosts
        self.project = folder / "project"
        shutil.copytree(ROOT / "recipes", self.project / "recipes")
        (self.project / "dvc.yaml").touch()
        self.single = folder / "single"
        if start_training(self.single, make_plan(self.project, *SLOWED)).wait(300):
            raise SystemExit((self.single / "told.txt").read_text())
        self.rows: list[dict[str, Any]] = []

    def plan(self, *overrides: str) -> dict[str, Any]:
        return make_plan(self.project, *SLOWED, "distributed.nodes=2", *overrides)

    def torchrun_plan(self, *overrides: str) -> dict[str, Any]:
        rendezvous = f"distributed.rendezvous={self.hosts[0].address}:29400"
        return self.plan("distributed.launcher=torchrun", rendezvous, *overrides)

    def join(self, run_dir: Path, host: Host) -> subprocess.Popen[bytes]:
        """What a user types on another host."""
        await_true((run_dir / "plan.json").exists, seconds=30, what="the plan")
        command = [sys.executable, "-m", "recaster.distributed.launch", str(run_dir)]
        return host.start(command, self.folder / "others.log")

    def row(self, launcher: str, what: str, run_dir: Path, *, fewer: bool = False, **facts: Any) -> None:
        """Note how the run ended; `fewer`: at times with fewer ranks, so that sums had another order."""
        result, losses = (
            read_json(run_dir / "result.json"),
            [_last_loss(run) for run in (run_dir, self.single)],
        )
        self.rows.append(
            {
                "launcher": launcher,
                "what": what,
                "equal": weights_of(run_dir) == weights_of(self.single),
                "fewer": fewer,
                "whole_journal": trained_steps(run_dir) == list(range(1, result["steps"] + 1)),
                "ranks_at_the_end": result["ranks"],
                "last_resumed_at": result["resumed_at"],
                "validation_loss": losses[0],
                "single_host_validation_loss": losses[1],
                "longest_pause_seconds": _longest_pause(run_dir),
                "told": [fault["text"] for fault in read_faults(run_dir)],
                **facts,
            }
        )
        print(self.rows[-1], flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="launchers") as folder, joined_hosts(4) as hosts:
        bench = Bench(Path(folder), hosts)
        for scenario in (
            _undisturbed,
            _by_torchrun_itself,
            _other_host_comes_back,
            _other_host_stays_away,
            _other_host_comes_late,
            _other_host_is_cut_off,
            _rank_on_other_host_hangs,
            _first_host_is_lost,
        ):
            scenario(bench)
        address = start_cluster(hosts, Path(folder) / "ray.log")
        _ray_loses_a_node(bench, address)
        _ray_goes_on_with_fewer(bench, address)
    same = [row for row in bench.rows if not row["fewer"]]
    fewer = [row for row in bench.rows if row["fewer"]]
    targets = [
        target(
            "runs over two hosts with the single host's weights (sha256)",
            str(len(same)),
            sum(row["equal"] for row in same),
            met=all(row["equal"] for row in same),
        ),
        target(
            "runs that lost a host for good and ended within the bounds",
            str(len(fewer)),
            sum(row["whole_journal"] for row in fewer),
            met=all(row["whole_journal"] for row in fewer),
        ),
        target(
            "journals without gap or double",
            str(len(bench.rows)),
            sum(row["whole_journal"] for row in bench.rows),
            met=all(row["whole_journal"] for row in bench.rows),
        ),
    ]
    question = "Do several hosts train the model that one host trains, also when one is lost?"
    write_result("launchers", question, bench.rows, targets, ["torch", "ray"])


def _undisturbed(bench: Bench) -> None:
    run_dir = bench.folder / "two"
    before = _sent(bench.hosts[1])
    training = start_training(run_dir, bench.torchrun_plan(), bench.hosts[0].prefix)
    other = bench.join(run_dir, bench.hosts[1])
    _await_end(training, run_dir)
    other.wait(60)
    sent = _sent(bench.hosts[1]) - before
    bench.row("torchrun", "nothing", run_dir, second_host_sent_mib=round(sent / 2**20, 1))


def _by_torchrun_itself(bench: Bench) -> None:
    """The ranks under `torchrun`, as a cluster's own script may start them; nobody watches for hangs then."""
    run_dir = bench.folder / "plain"
    run_dir.mkdir()
    shutil.copy(bench.folder / "two" / "plan.json", run_dir)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={bench.hosts[0].address}:29401", "--rdzv-id=plain"),
        *("-m", "recaster.training", str(run_dir)),
    ]
    agents = []
    for host, is_host in zip(bench.hosts, ("1", "0"), strict=False):
        words = [*command[:5], f"--rdzv-conf=is_host={is_host}", f"--local-addr={host.address}", *command[5:]]
        agents.append(host.start(words, bench.folder / "others.log", OMP_NUM_THREADS="1"))
    for agent in agents:
        if agent.wait(300):
            raise SystemExit((bench.folder / "others.log").read_text()[-3000:])
    bench.row("torchrun", "nothing; started by the command torchrun itself", run_dir)


def _other_host_comes_back(bench: Bench) -> None:
    run_dir = bench.folder / "back"
    training = start_training(run_dir, bench.torchrun_plan(), bench.hosts[0].prefix)
    bench.join(run_dir, bench.hosts[1])
    _disturb(run_dir, training, bench.hosts[1].kill_all, lambda: bench.join(run_dir, bench.hosts[1]))
    bench.row("torchrun", "second host killed, command typed again", run_dir)


def _other_host_stays_away(bench: Bench) -> None:
    run_dir = bench.folder / "away"
    plan = bench.torchrun_plan("distributed.min_ranks=1")
    training = start_training(run_dir, plan, bench.hosts[0].prefix)
    bench.join(run_dir, bench.hosts[1])
    _disturb(run_dir, training, bench.hosts[1].kill_all)
    bench.row(
        "torchrun",
        "second host killed for good, min_ranks 1",
        run_dir,
        fewer=True,
    )


def _other_host_comes_late(bench: Bench) -> None:
    """It joins again when the first goes on alone: both start anew from the newest checkpoint."""
    run_dir = bench.folder / "late"
    plan = bench.torchrun_plan("distributed.min_ranks=1", "train.epochs=60")
    training = start_training(run_dir, plan, bench.hosts[0].prefix)
    bench.join(run_dir, bench.hosts[1])

    def until_alone() -> None:
        await_true(
            lambda: read_json(run_dir / "plan.json")["distributed"]["ranks"] == 1, seconds=90, what="1 rank"
        )
        bench.join(run_dir, bench.hosts[1])

    _disturb(run_dir, training, bench.hosts[1].kill_all, until_alone)
    what = "second host killed, command typed again when the first had gone on alone (20 times the epochs)"
    bench.row("torchrun", what, run_dir, fewer=True)


def _other_host_is_cut_off(bench: Bench) -> None:
    """The cable is pulled: no process ends and no connection is closed."""
    run_dir = bench.folder / "cut"
    plan = bench.torchrun_plan("distributed.min_ranks=1", "distributed.hang_timeout_seconds=10")
    training = start_training(run_dir, plan, bench.hosts[0].prefix)
    bench.join(run_dir, bench.hosts[1])
    link = ["ip", "-n", bench.hosts[1].namespace, "link", "set", "eth0"]
    _disturb(run_dir, training, lambda: subprocess.run([*link, "down"], check=True))
    bench.hosts[1].kill_all()
    subprocess.run([*link, "up"], check=True)
    what = "second host's cable pulled for good, min_ranks 1, hang timeout 10 s"
    bench.row("torchrun", what, run_dir, fewer=True)


def _rank_on_other_host_hangs(bench: Bench) -> None:
    run_dir = bench.folder / "hang"
    plan = bench.torchrun_plan("distributed.hang_timeout_seconds=10")
    training = start_training(run_dir, plan, bench.hosts[0].prefix)
    bench.join(run_dir, bench.hosts[1])

    def stop() -> None:
        os.kill(_beat_on(run_dir, bench.hosts[1].name).pid, signal.SIGSTOP)

    _disturb(run_dir, training, stop)
    what = "rank on the second host stopped (SIGSTOP), hang timeout 10 s"
    bench.row("torchrun", what, run_dir)


def _first_host_is_lost(bench: Bench) -> None:
    """It holds the rendezvous: the run ends everywhere, and the same commands go on."""
    run_dir = bench.folder / "first"
    training = start_training(run_dir, bench.torchrun_plan(), bench.hosts[0].prefix)
    other = bench.join(run_dir, bench.hosts[1])
    await_journal(run_dir, _AT, training)
    bench.hosts[0].kill_all()
    training.wait()
    started = time.monotonic()
    code = other.wait(300)
    ended = time.monotonic() - started
    training = start_training(run_dir, bench.torchrun_plan(), bench.hosts[0].prefix)
    bench.join(run_dir, bench.hosts[1])
    _await_end(training, run_dir)
    bench.row(
        "torchrun",
        "first host killed, both commands typed again",
        run_dir,
        other_exit_code=code,
        other_ended_after_seconds=round(ended, 1),
    )


def _ray_loses_a_node(bench: Bench, address: str) -> None:
    run_dir = bench.folder / "ray"
    plan = bench.plan("distributed.launcher=ray", f"distributed.ray_address={address}")
    training = start_training(run_dir, plan, bench.hosts[0].prefix)
    _disturb(run_dir, training, lambda: lose_node(_host_of_rank(bench, run_dir, 1)))
    bench.row("ray", "node of rank 1 lost (kill -9 of its raylet)", run_dir)


def _ray_goes_on_with_fewer(bench: Bench, address: str) -> None:
    """Two nodes are left; after this one."""
    run_dir = bench.folder / "ray-fewer"
    plan = bench.plan(
        "distributed.launcher=ray", f"distributed.ray_address={address}", "distributed.min_ranks=1"
    )
    training = start_training(run_dir, plan, bench.hosts[0].prefix)
    _disturb(run_dir, training, lambda: lose_node(_host_of_rank(bench, run_dir, 1)))
    bench.row("ray", "another node lost, one left, min_ranks 1", run_dir, fewer=True)


def _disturb(
    run_dir: Path, training: subprocess.Popen[str], trouble: Callable[[], object], *then: Callable[[], object]
) -> None:
    """Do `trouble` at step 40 and what follows, then see the run to its end."""
    await_journal(run_dir, _AT, training)
    for act in (trouble, *then):
        act()
    _await_end(training, run_dir)


def _await_end(training: subprocess.Popen[str], run_dir: Path) -> None:
    if training.wait(300):
        log = (run_dir / "ranks.log").read_text()[-3000:]
        raise SystemExit(f"{log}\n{(run_dir / 'told.txt').read_text()}")


def _beat_on(run_dir: Path, host: str) -> Beat:
    return next(beat for beat in read_beats(run_dir) if beat.host == host)


def _host_of_rank(bench: Bench, run_dir: Path, rank: int) -> Host:
    (name,) = (beat.host for beat in read_beats(run_dir) if beat.rank == rank)
    return next(host for host in bench.hosts if host.name == name)


def _last_loss(run_dir: Path) -> float:
    records = read_journal(run_dir / "journal.jsonl")
    return round(float([record["loss"] for record in records if record["kind"] == "validation"][-1]), 6)


def _longest_pause(run_dir: Path) -> float:
    """Between two steps of the journal; steps that were done again count as part of it."""
    times = [record["time"] for record in read_journal(run_dir / "journal.jsonl")]
    return round(float(max(after - before for before, after in pairwise(times))), 1)


def _sent(host: Host) -> int:
    """Bytes that left the host."""
    counter = "/sys/class/net/eth0/statistics/tx_bytes"
    done = subprocess.run([*host.prefix, "cat", counter], capture_output=True, text=True, check=True)
    return int(done.stdout)


if __name__ == "__main__":
    main()
