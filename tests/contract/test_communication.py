"""The contract of communication: what each scheme keeps of plain all-reduce, shown on two real ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.contract import communication_runs as runs
from tests.contract.communication_runs import Case

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("communication")]

EXACT = 4.2e-5
ROUNDED = 5e-3
"""After ten AdamW steps of 1e-3: where a gradient is next to nothing, a rounding turns the step's sign."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("communication")
    runs.run_cases(place)
    return place


def _by_name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [*runs.EXACT, runs.AUTO_EXACT], ids=_by_name)
def test_exact_schemes_equal_one_process(folder: Path, case: Case) -> None:
    assert runs.difference(runs.weights(folder, case), runs.weights(folder, runs.SINGLE)) < EXACT


@pytest.mark.parametrize("case", runs.ROUNDED, ids=_by_name)
def test_rounded_schemes_are_near_one_process(folder: Path, case: Case) -> None:
    error = runs.difference(runs.weights(folder, case), runs.weights(folder, runs.SINGLE))
    assert 0 < error < ROUNDED


@pytest.mark.parametrize("case", runs.REPEATABLE, ids=_by_name)
def test_two_runs_are_bitwise_equal(folder: Path, case: Case) -> None:
    assert runs.difference(runs.weights(folder, case), runs.weights(folder, case, run="again")) == 0


@pytest.mark.parametrize("case", runs.REPEATABLE, ids=_by_name)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_cut_at_half_is_bitwise_equal(folder: Path, case: Case, rank: int) -> None:
    whole, cut = (runs.weights(folder, case, run=run, rank=rank) for run in ("whole", "cut"))
    assert runs.difference(whole, cut) == 0


@pytest.mark.parametrize("case", [case for case in runs.CASES if case.ranks == 2], ids=_by_name)
def test_ranks_end_with_the_same_weights(folder: Path, case: Case) -> None:
    assert runs.difference(runs.weights(folder, case), runs.weights(folder, case, rank=1)) == 0


@pytest.mark.parametrize("case", runs.LOSSY, ids=_by_name)
def test_lossy_schemes_do_lose_something(folder: Path, case: Case) -> None:
    assert runs.difference(runs.weights(folder, case), runs.weights(folder, runs.SINGLE)) > EXACT


@pytest.mark.parametrize("case", runs.LONG_CASES, ids=_by_name)
def test_lossy_schemes_reach_the_same_loss_region(folder: Path, case: Case) -> None:
    """At equal steps, at least half of the way that plain all-reduce comes."""
    plain, own = (runs.facts(folder, item)["losses"] for item in (runs.LONG_CASES[0], case))
    assert plain[0] - _end(own) > 0.5 * (plain[0] - _end(plain))


def _end(losses: list[float]) -> float:
    return sum(losses[-5:]) / 5


def test_local_sgd_of_one_step_is_all_reduce(folder: Path) -> None:
    plain, own = (runs.weights(folder, case) for case in (runs.ALLREDUCE_SGD, runs.LOCAL_SGD_1))
    assert runs.difference(plain, own) < 1e-6


def test_diloco_with_a_plain_outer_step_is_local_sgd(folder: Path) -> None:
    local, own = (runs.weights(folder, case) for case in (runs.LOCAL_SGD_3, runs.DILOCO_PLAIN))
    assert runs.difference(local, own) < 1e-6
    assert runs.difference(local, runs.weights(folder, runs.ALLREDUCE_SGD)) > 1e-5


def test_a_server_without_staleness_is_all_reduce(folder: Path) -> None:
    """Each rank's update has its share of the rate; plain SGD adds them up, in either order."""
    plain, own = (runs.weights(folder, case) for case in (runs.ALLREDUCE_SGD, runs.STALE_0))
    assert runs.difference(plain, own) < 5e-6  # two roundings of weights near 1 for one, ten times


def test_servers_go_on_from_their_memory(folder: Path) -> None:
    whole, cut = (runs.weights(folder, runs.STALE_0, run=run) for run in ("whole", "cut"))
    assert runs.difference(whole, cut) < 5e-6


def test_staleness_keeps_its_bound(folder: Path) -> None:
    long = runs.LONG_CASES[-1]
    lag = runs.facts(folder, long)["lag"]
    assert len(lag) == 2 * long.steps
    assert max(lag) <= long.section["parameter_server"]["staleness"]
    assert max(runs.facts(folder, runs.STALE_0)["lag"]) == 0


def test_the_rehearsal_changes_nothing(folder: Path) -> None:
    plain, advised = (runs.weights(folder, case) for case in (runs.EXACT[0], runs.AUTO_EXACT))
    assert runs.difference(plain, advised) == 0


def test_the_adviser_switches_off_what_does_not_pay(folder: Path) -> None:
    facts = runs.facts(folder, runs.AUTO_WRONG)
    assert facts["chosen"] == "allreduce"
    assert [choice["scheme"] for choice in facts["record"]["choices"]] == ["bf16", "allreduce"]
    assert facts["record"]["measured_seconds"] > 0


def test_the_adviser_predicts_every_scheme_of_its_budget(folder: Path) -> None:
    facts = runs.facts(folder, runs.AUTO_LOCAL)
    predicted = {item["scheme"]: item["seconds"] for item in facts["record"]["predictions"]}
    assert set(predicted) == {"allreduce", "bf16", "fp16", "powersgd", "topk", "local-sgd", "diloco"}
    assert min(predicted.values()) > 0


@pytest.mark.parametrize("scheme", runs.FEEDBACK)
def test_error_feedback_loses_nothing(folder: Path, scheme: str) -> None:
    """Over the steps, what was sent and what still waits, averaged over the ranks, are what there was."""
    found = [load_file(folder / f"feedback-{scheme}-{rank}.safetensors") for rank in (0, 1)]
    assert torch.equal(found[0]["sent"], found[1]["sent"])
    total, waiting = (sum(rank[name] for rank in found) / 2 for name in ("total", "waiting"))
    assert float(waiting.abs().max()) > 0.1
    assert torch.allclose(found[0]["sent"] + waiting, total, atol=1e-4)
