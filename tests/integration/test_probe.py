"""Probes of real trainings: what they foresee, what they refuse under a real limit, and that it is true."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recaster.preflight.launch import probe
from recaster.preflight.limits import read_memory_limits
from tests.conftest import Command
from tests.integration.training_task import result_of, write_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_UNDER_A_LIMIT = """
import json, resource, sys
from pathlib import Path
from recaster.preflight.forecast import make_forecast
from recaster.preflight.launch import probe, started_ranks
from recaster.preflight.limits import read_memory_limits

run_dir, limit = Path(sys.argv[1]), int(sys.argv[2])
plan = json.loads((run_dir / "plan.json").read_text())
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
limits = read_memory_limits(1)
found = probe(run_dir / "probe", plan, limits=limits, seconds=60)
forecast = make_forecast(found, plan, limits=limits, free_disk=1 << 40, copies=0, power=None)
codes = []
for size in (None, forecast.fitting):
    run = run_dir.with_name(f"run-{size}")
    run.mkdir()
    train = {**plan["train"], "micro_batch_size": size}
    (run / "plan.json").write_text(json.dumps({**plan, "train": train}))
    command = [sys.executable, "-m", "recaster.training", str(run)]
    with started_ranks(command, plan["distributed"], log=run / "log") as ranks:
        codes.append([rank.wait() for rank in ranks])
print(json.dumps({**forecast.to_json(), "codes": codes}))
"""


def _train(run_dir: Path) -> None:
    from recaster.preflight.launch import started_ranks

    section = json.loads((run_dir / "plan.json").read_text())["distributed"]
    command = [sys.executable, "-m", "recaster.training", str(run_dir)]
    with started_ranks(command, section, log=run_dir / "ranks.log") as ranks:
        assert [rank.wait() for rank in ranks] == [0] * section["ranks"], (run_dir / "ranks.log").read_text()


def _probe(run_dir: Path, ranks: int = 1) -> list[dict[str, Any]]:
    plan = json.loads((run_dir / "plan.json").read_text())
    return probe(run_dir / "probe", plan, limits=read_memory_limits(ranks), seconds=90)


def test_memory_is_foreseen_and_a_real_limit_refuses_what_would_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of about 20 MB a row: 16 rows in one pass, then as many as half of their memory allows."""
    # Each further arena takes 64 MB of address space, and how many there are is chance.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    write_plan(tmp_path / "wide", "wide")
    (found,) = _probe(tmp_path / "wide")
    peak = found["miniature"]["peak"]
    _train(tmp_path / "wide")
    measured = result_of(tmp_path / "wide")["peak_memory_mib"] * 2**20
    assert peak["resident"] == pytest.approx(measured, rel=0.15)
    assert not (tmp_path / "wide" / "probe").exists()

    built = found["built"]["address_space"]
    limit = built + (peak["address_space"] - built) // 2
    write_plan(tmp_path / "limited", "wide")
    command = [sys.executable, "-c", _UNDER_A_LIMIT, str(tmp_path / "limited"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    forecast = json.loads(done.stdout)
    assert forecast["micro_batch_size"]["asked"] == 16
    assert 1 <= forecast["micro_batch_size"]["fits"] <= 8
    (reason,) = forecast["refused"]
    assert "Too little memory" in reason
    assert f"--set train.micro_batch_size={forecast['micro_batch_size']['fits']}" in reason
    refused, fitting = forecast["codes"]
    assert refused != [0] and fitting == [0]


def test_all_ranks_of_a_host_are_probed_together(tmp_path: Path) -> None:
    write_plan(tmp_path / "two", "mlp", ranks=2)
    found = _probe(tmp_path / "two", ranks=2)
    assert [rank["share"] for rank in found] == [8, 8]
    assert all(rank["miniature"]["peak"]["resident"] > 0 for rank in found)
    assert ["stages" in rank["miniature"] for rank in found] == [True, False]


def test_a_model_that_cannot_be_trained_so_is_told_before_it_is(tmp_path: Path) -> None:
    from recaster.core.errors import RecipeError

    write_plan(tmp_path / "frozen", "mlp", freeze=["no.such.parameter"])
    with pytest.raises(RecipeError, match="names no parameter"):
        _probe(tmp_path / "frozen")


def test_check_foresees_a_cast_and_refuses_more_disk_than_there_is(project: Path, command: Command) -> None:
    recipe = "recipes/image-classification/tiny.yaml"
    good = command("check", recipe)
    assert good.returncode == 0, good.stderr
    assert "peak memory of a rank" in good.stdout and "records accepted" in good.stdout
    endless = ("--set", "train.keep_checkpoints=1000000000000")
    refused = command("check", recipe, *endless, "--json")
    assert refused.returncode == 2 and "Too little disk" in refused.stderr
    value = json.loads(refused.stdout)
    assert value["accepted"] == 1797 and "Too little disk" in value["forecast"]["refused"][0]
    assert value["forecast"]["time"]["steps"] == 80
    assert {(one["exact"], one["near"]) for one in value["leakage"]} == {(0, 0)}
    # The training refuses the same by itself, from the size of its model.
    training = command("train", recipe, *endless)
    assert training.returncode == 2 and "no step was taken" in training.stderr
    assert not [*(project / ".recaster" / "steps" / "train").glob("*/journal.jsonl")]
    assert [*(project / ".recaster" / "preflight").iterdir()] == []
