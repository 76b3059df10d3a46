"""Ray Train starts the ranks over several nodes, and again without a node that is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recaster.core.files import read_json
from recaster.distributed.heartbeat import read_beats
from tests.faults.hosts import Host, NotAllowedError, joined_hosts
from tests.faults.ray_cluster import lose_node, start_cluster
from tests.faults.training_runs import (
    SLOWED,
    await_journal,
    make_plan,
    start_training,
    trained_steps,
    weights_of,
)

pytest.importorskip("ray.train", reason="needs the extra `ray`: pip install -e '.[ray]'")


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    try:
        with joined_hosts(4) as found:
            yield found
    except NotAllowedError as error:
        pytest.skip(f"needs network namespaces as hosts: {error}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_node_is_replaced(project: Path, tmp_path: Path, hosts: list[Host]) -> None:
    one = tmp_path / "one"
    assert start_training(one, make_plan(project, *SLOWED)).wait(200) == 0
    address = start_cluster(hosts, tmp_path / "ray.log")
    plan = make_plan(
        project,
        *SLOWED,
        "distributed.launcher=ray",
        "distributed.nodes=2",
        f"distributed.ray_address={address}",
    )
    run_dir = tmp_path / "run"
    training = start_training(run_dir, plan, hosts[0].prefix)
    await_journal(run_dir, 40, training)
    names = {beat.rank: beat.host for beat in read_beats(run_dir)}
    assert len(set(names.values())) == 2, "each rank on a node of its own"
    lose_node(next(host for host in hosts if host.name == names[1]))
    assert training.wait(300) == 0, (run_dir / "told.txt").read_text()
    assert weights_of(run_dir) == weights_of(one)
    assert trained_steps(run_dir) == trained_steps(one)
    result = read_json(run_dir / "result.json")
    assert result["ranks"] == 2 and result["resumed_at"] > 0
    assert not (run_dir / "ray").exists()
