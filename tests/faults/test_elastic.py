"""Fewer or more ranks go on where others stopped, and each sample of an epoch is taken exactly once."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import psutil
import pytest

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.core.seeds import derive_seed
from recaster.distributed.elastic import fit_section, rank_counts
from recaster.recipe.load import load_recipe
from recaster.training.sampler import Sampler
from tests.conftest import ROOT
from tests.faults.processes import await_true, find_ranks
from tests.faults.training_runs import (
    SLOWED,
    await_journal,
    make_plan,
    read_faults,
    start_training,
    trained_steps,
)


def _section(strategy: str, ranks: int, **mesh: int) -> dict[str, object]:
    sizes = {"data": 1, "shard": 1, "pipe": 1, "tensor": 1, **mesh}
    return {"strategy": strategy, "ranks": ranks, "min_ranks": 1, "mesh": sizes}


@pytest.mark.parametrize(
    ("section", "ranks", "mesh"),
    [
        (_section("ddp", 4, data=4), 3, {"data": 3}),
        (_section("fsdp", 4, shard=4), 2, {"shard": 2}),
        (_section("fsdp", 2, shard=2), 4, {"shard": 4}),
        (_section("fsdp", 8, data=2, shard=4), 4, {"shard": 4}),
        (_section("fsdp", 8, data=2, shard=4), 3, {"shard": 3}),
        (_section("tensor", 8, data=4, tensor=2), 6, {"data": 3, "tensor": 2}),
        (_section("pipeline", 4, data=2, pipe=2), 2, {"pipe": 2}),
    ],
)
def test_only_copies_and_shards_become_fewer(
    section: dict[str, object], ranks: int, mesh: dict[str, int]
) -> None:
    fitted = fit_section(section, ranks)
    assert fitted["ranks"] == ranks
    assert {name: size for name, size in fitted["mesh"].items() if size > 1} == mesh


def test_a_replica_cannot_lose_a_part() -> None:
    section = {**_section("tensor", 6, data=3, tensor=2), "min_ranks": 2}
    assert rank_counts(section) == [6, 4, 2]
    with pytest.raises(ValueError, match="does not fit 3 ranks"):
        fit_section(section, 3)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["distributed.min_ranks=3"], "possible: 1, 2"),
        (["distributed.nodes=2"], "use torchrun or ray"),
        (["distributed.launcher=torchrun", "distributed.nodes=2"], "needs rendezvous"),
        (["distributed.launcher=torchrun", "distributed.rendezvous=here"], "rendezvous"),
        (["distributed.hang_timeout_seconds=1"], "hang_timeout_seconds"),
    ],
)
def test_bounds_that_do_not_fit_are_named(overrides: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe(ROOT / "recipes" / "digits.yaml", overrides)


_RECORDS = """
import json, os
from pathlib import Path
from recaster.workloads import image_classification as real

class Recording(real.PictureSet):
    def batch(self, rows, *, seed):
        if seed is not None:
            path = Path(os.environ["TAKEN"], f"{os.getpid()}.jsonl")
            with path.open("a") as file:
                file.write(json.dumps({"seed": seed, "rows": rows.tolist()}) + "\\n")
        return super().batch(rows, seed=seed)

class Workload(real.ImageClassification):
    def open_split(self, folder, split, plan):
        found = super().open_split(folder, split, plan)
        found.__class__ = Recording
        return found

WORKLOAD = Workload()
"""


def _taken(folder: Path, sampler: Sampler, epochs: int, seed: int) -> Counter[tuple[int, int]]:
    """How often each (step from 0, row) was read for training."""
    epoch_of = {derive_seed(seed, "augment", epoch): epoch for epoch in range(epochs)}
    step_of = {
        (epoch, row): epoch * sampler.steps_per_epoch + place // sampler.batch_size
        for epoch in range(epochs)
        for place, row in enumerate(sampler.order(epoch).tolist())
    }
    found: Counter[tuple[int, int]] = Counter()
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            epoch = epoch_of[record["seed"]]
            found.update((step_of[epoch, row], row) for row in record["rows"])
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("ranks", [1, 4])
def test_each_sample_once_over_another_number_of_ranks(project: Path, tmp_path: Path, ranks: int) -> None:
    """Cut in the middle of an epoch with 2 ranks, gone on with 1 or 4."""
    (tmp_path / "recording_workload.py").write_text(_RECORDS)
    run_dir, epochs = tmp_path / "run", 2
    small = [*SLOWED, f"train.epochs={epochs}"]
    started: list[Path] = []

    def train(count: int) -> psutil.Popen:
        started.append(tmp_path / f"taken-{count}")
        started[-1].mkdir()
        plan = {
            **make_plan(project, *small, f"distributed.ranks={count}"),
            "workload_module": "recording_workload",
        }
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        return start_training(run_dir, plan, PYTHONPATH=path, TAKEN=str(started[-1]))

    training = train(2)
    await_journal(run_dir, 25, training)
    training.kill()
    training.wait()
    await_true(lambda: not find_ranks(run_dir), seconds=15, what="the ranks ended")
    resumed_at = max(int(path.name) for path in (run_dir / "checkpoints").iterdir() if path.name.isdigit())
    assert train(ranks).wait(200) == 0, (run_dir / "told.txt").read_text()
    result = read_json(run_dir / "result.json")
    assert (result["resumed_at"], result["ranks"]) == (resumed_at, ranks)
    plan = read_json(run_dir / "plan.json")
    rows = read_json(Path(plan["prepared"]) / "splits.json")["rows"]["train"]
    sampler = Sampler(samples=rows, batch_size=plan["train"]["batch_size"], seed=plan["train"]["seed"])
    assert resumed_at % sampler.steps_per_epoch, "it was cut in the middle of an epoch"
    before, after = (_taken(folder, sampler, epochs, plan["train"]["seed"]) for folder in started)
    counted = Counter({key: times for key, times in before.items() if key[0] < resumed_at}) + after
    assert set(counted.values()) == {1} and len(counted) == epochs * rows
    assert min(step for step, _ in after) == resumed_at
    assert trained_steps(run_dir) == list(range(1, epochs * sampler.steps_per_epoch + 1))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rank_that_cannot_be_replaced_is_left_out(project: Path, tmp_path: Path) -> None:
    plan = make_plan(project, *SLOWED, "distributed.min_ranks=1", "distributed.max_restarts=0")
    run_dir = tmp_path / "run"
    training = start_training(run_dir, plan)
    await_journal(run_dir, 25, training)
    find_ranks(run_dir)[0].kill()
    assert training.wait(200) == 0, (run_dir / "told.txt").read_text()
    (fault,) = read_faults(run_dir)
    assert (fault["kind"], fault["ranks"]) == ("fewer", 1)
    assert "going on with 1 rank from" in (run_dir / "told.txt").read_text()
    assert read_json(run_dir / "result.json")["ranks"] == 1
    steps = trained_steps(run_dir)
    assert steps == list(range(1, len(steps) + 1))
