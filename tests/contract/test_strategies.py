"""Every strategy ends where one process ends, ends there twice, and goes on where another stopped.

Tolerances are the wanted ones, as largest difference of a weight after ten AdamW steps. Measured on
CPU: float32 below 1e-6, the order of sums being all that differs; bf16 below 4e-3 (see
`benchmarks/results/strategies.json`), of which a step can move a weight by 1e-3.
"""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
import torch

from tests.conftest import shared_folder
from tests.contract import strategy_runs
from tests.contract.strategy_runs import CASES, MAX_NORM, MOVES, SINGLE, Case, Move

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("strategies")]
_FLOAT32, _FLOAT32_EXACT, _BF16 = 4.2e-5, 2e-5, 5e-3
# The norm tells what AdamW hides: a gradient that is wrong by a factor.
_NORM = {"float32": 1e-5, "bf16": 1e-2}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs, made once, also when several test processes share the work."""
    folder = shared_folder(tmp_path_factory, "strategy-runs")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            strategy_runs.run_phases(folder)
            done.touch()
    return folder


def _tolerance(case: Case) -> float:
    if case.precision == "bf16":
        return _BF16
    return _FLOAT32_EXACT if case.strategy in ("ddp", "pipeline") else _FLOAT32


def _reports(runs: Path, case: Case, rank: int = 0) -> list[list[float]]:
    reports: list[list[float]] = json.loads((runs / case.name / f"reports-{rank}.json").read_text())
    return reports


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_weights_equal_those_of_one_process(runs: Path, case: Case) -> None:
    reference = strategy_runs.reference_of(case)
    assert strategy_runs.largest_error(runs, case.name, reference) <= _tolerance(case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_two_runs_are_bitwise_equal(runs: Path, case: Case) -> None:
    one = strategy_runs.final_weights(runs, case.name, case.model)
    two = strategy_runs.final_weights(runs, f"{case.name}-again", case.model)
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_clipping_is_by_the_norm_of_the_whole_gradient(runs: Path, case: Case) -> None:
    wanted = [report[3] for report in _reports(runs, strategy_runs.reference_of(case))]
    assert min(wanted) > MAX_NORM  # every step is clipped
    for rank in range(case.ranks):
        norms = [report[3] for report in _reports(runs, case, rank)]
        assert norms == pytest.approx(wanted, rel=_NORM[case.precision])
        # Bit for bit on all ranks: what they hold alike must stay alike.
        assert norms == [report[3] for report in _reports(runs, case)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_row_is_reported_once(runs: Path, case: Case) -> None:
    ranks = [_reports(runs, case, rank) for rank in range(case.ranks)]
    reference = _reports(runs, strategy_runs.reference_of(case))
    for step, wanted in enumerate(reference):
        assert sum(reports[step][2] for reports in ranks) == wanted[2]
        loss = sum(reports[step][1] for reports in ranks)
        assert loss == pytest.approx(wanted[1], rel=_NORM[case.precision])
    assert [report[2] for report in reference] == strategy_runs.expected_targets(case.model)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_a_checkpoint_moves(runs: Path, move: Move) -> None:
    assert strategy_runs.largest_error(runs, move.name, strategy_runs.reference_of(move.to)) <= _FLOAT32


def test_what_is_compared_moves_far(runs: Path) -> None:
    """The runs train: a strategy that did nothing, or half of it, would be off by much more than allowed."""
    start = strategy_runs.build_model(SINGLE.model).state_dict()
    end = strategy_runs.final_weights(runs, SINGLE.name, SINGLE.model)
    assert max(float((end[name] - value).abs().max()) for name, value in start.items()) > 100 * _FLOAT32
