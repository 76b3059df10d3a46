"""A rank that hangs is named with the collective and the step, killed and replaced."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from recaster.core.files import read_json
from recaster.distributed.heartbeat import Beat
from recaster.distributed.watchdog import Vigil
from tests.faults.processes import await_true
from tests.faults.training_runs import (
    SLOWED,
    await_journal,
    make_plan,
    read_faults,
    start_training,
    trained_steps,
    weights_of,
)

_BEAT = Beat(rank=0, host="a", pid=1, group="g", beat=0, notes=0, step=36, phase="step", waits_in="")


def _look(vigil: Vigil, now: float, *changes: dict[str, object]) -> object:
    beats = [
        Beat(
            **{**{name: getattr(_BEAT, name) for name in Beat.__slots__}, "rank": rank, "pid": rank, **change}
        )
        for rank, change in enumerate(changes)
    ]
    return vigil.look(beats, now)


def test_a_silent_process_is_told_from_one_that_waits_for_it() -> None:
    vigil = Vigil(10)
    waiting = {"waits_in": "all_reduce", "step": 37}
    assert _look(vigil, 0, {**waiting, "beat": 1}, {"beat": 1}) is None
    assert _look(vigil, 10, {**waiting, "beat": 10}, {"beat": 1}) is None
    hang = _look(vigil, 11, {**waiting, "beat": 11}, {"beat": 1})
    assert hang.frozen and hang.collective == "all_reduce" and hang.step == 38
    assert [beat.rank for beat in hang.beats] == [1]


def test_a_rank_that_loops_is_told_by_the_collective_it_is_not_in() -> None:
    vigil = Vigil(10)
    waiting = {"waits_in": "all_gather"}
    for now in range(11):
        assert _look(vigil, now, {**waiting, "beat": now}, {"beat": now}, {**waiting, "beat": now}) is None
    hang = _look(vigil, 11, {**waiting, "beat": 11}, {"beat": 11}, {**waiting, "beat": 11})
    assert not hang.frozen and hang.collective == "all_gather" and [beat.rank for beat in hang.beats] == [1]


def test_progress_of_one_rank_is_progress_and_a_start_may_take_longer() -> None:
    vigil = Vigil(10)
    for now in range(40):
        assert _look(vigil, now, {"beat": now, "notes": now // 5}, {"beat": now}) is None
    vigil = Vigil(10)
    for now in range(101):
        assert _look(vigil, now, {"beat": now, "phase": "compile"}, {"beat": now}) is None
    assert _look(vigil, 101, {"beat": 101, "phase": "compile"}, {"beat": 101}) is not None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stopped_rank_is_named_and_replaced(project: Path, tmp_path: Path) -> None:
    plan = make_plan(project, *SLOWED, "distributed.hang_timeout_seconds=5")
    whole = tmp_path / "whole"
    assert start_training(whole, plan).wait(200) == 0
    broken = tmp_path / "broken"
    training = start_training(broken, plan)
    await_journal(broken, 25, training)
    os.kill(read_json(broken / "heartbeats" / "rank-00001.json")["pid"], signal.SIGSTOP)
    await_true(lambda: bool(read_faults(broken)), seconds=60, what="the hang is named")
    assert training.wait(200) == 0, (broken / "told.txt").read_text()
    (fault,) = read_faults(broken)
    assert fault["ranks"] == [1] and fault["collective"] and fault["step"] > 25
    assert fault["text"] in (broken / "told.txt").read_text()
    assert weights_of(broken) == weights_of(whole)
    steps = trained_steps(broken)
    assert steps == list(range(1, len(steps) + 1)) == trained_steps(whole)


_LOOPS = """
import os, time
from pathlib import Path
from recaster.workloads import image_classification as real

class Looping(real.PictureSet):
    def batch(self, rows, *, seed):
        mark = Path(os.environ["LOOP_MARK"])
        if os.environ["RANK"] == "1" and seed is not None and mark.exists():
            mark.unlink()
            while True:
                time.sleep(0.1)
        return super().batch(rows, seed=seed)

class Workload(real.ImageClassification):
    def open_split(self, folder, split, plan):
        found = super().open_split(folder, split, plan)
        found.__class__ = Looping
        return found

WORKLOAD = Workload()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rank_that_loops_is_named_and_replaced(project: Path, tmp_path: Path) -> None:
    """Its process lives and beats; the others wait for it."""
    (tmp_path / "looping_workload.py").write_text(_LOOPS)
    plan = make_plan(project, *SLOWED, "distributed.hang_timeout_seconds=5")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run_dir, mark = tmp_path / "run", tmp_path / "mark"
    training = start_training(
        run_dir, {**plan, "workload_module": "looping_workload"}, PYTHONPATH=path, LOOP_MARK=str(mark)
    )
    await_journal(run_dir, 25, training)
    mark.touch()
    assert training.wait(200) == 0, (run_dir / "told.txt").read_text()
    (fault,) = read_faults(run_dir)
    assert fault["ranks"] == [1] and fault["collective"] == "all_reduce" and fault["step"] > 25
    assert "no progress" in fault["text"]
    steps = trained_steps(run_dir)
    assert steps == list(range(1, len(steps) + 1))
