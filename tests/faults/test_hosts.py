"""Two hosts train together as one; one is lost, comes back, or is left out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recaster.distributed.network import address_towards, choose_interface, interface_of, is_local_address
from tests.faults.hosts import Host, NotAllowedError, joined_hosts
from tests.faults.processes import await_true
from tests.faults.training_runs import (
    SLOWED,
    await_journal,
    make_plan,
    start_training,
    trained_steps,
    weights_of,
)


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    try:
        with joined_hosts() as found:
            yield found
    except NotAllowedError as error:
        pytest.skip(f"needs network namespaces as hosts: {error}")


def test_the_interface_is_the_one_that_leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_towards("127.0.0.1", 9) == "127.0.0.1" and interface_of("127.0.0.1") == "lo"
    assert is_local_address("127.0.0.1") and not is_local_address("192.0.2.1")  # kept for documentation
    assert interface_of("192.0.2.1") is None
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "")  # so that what is set below is taken back
    monkeypatch.delenv("NCCL_SOCKET_IFNAME")
    choose_interface("127.0.0.1", 9)
    assert (os.environ["GLOO_SOCKET_IFNAME"], os.environ["NCCL_SOCKET_IFNAME"]) == ("mine", "lo")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_hosts_train_as_one_and_one_comes_back(project: Path, tmp_path: Path, hosts: list[Host]) -> None:
    single = make_plan(project, *SLOWED)
    one = tmp_path / "one"
    assert start_training(one, single).wait(200) == 0
    rendezvous = f"{hosts[0].address}:29400"
    plan = make_plan(
        project,
        *SLOWED,
        "distributed.launcher=torchrun",
        "distributed.nodes=2",
        f"distributed.rendezvous={rendezvous}",
    )
    run_dir = tmp_path / "two"
    training = start_training(run_dir, plan, hosts[0].prefix)
    await_true((run_dir / "plan.json").exists, seconds=30, what="the plan")
    command = [sys.executable, "-m", "recaster.distributed.launch", str(run_dir)]
    log = tmp_path / "host-b.log"
    hosts[1].start(command, log)
    await_journal(run_dir, 40, training)
    hosts[1].kill_all()
    second = hosts[1].start(command, log)
    assert training.wait(200) == 0, (run_dir / "told.txt").read_text()
    assert second.wait(60) == 0, log.read_text()
    assert weights_of(run_dir) == weights_of(one)
    assert trained_steps(run_dir) == trained_steps(one)
    assert "recaster.distributed.launch" in (run_dir / "told.txt").read_text()
