"""Do kills and hangs at random steps change anything?

Trains the digits model once undisturbed, then again and again with a rank, all ranks and the
launcher killed (kill -9), each at a random step, and compares the final weights by sha256.

    python -m benchmarks.kill_campaign --set communication=powersgd
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import target, write_result
from tests.conftest import ROOT
from tests.faults.processes import await_true, find_ranks
from tests.faults.training_runs import (
    await_journal,
    make_plan,
    read_faults,
    start_training,
    trained_steps,
    weights_of,
)

_SMALL = (
    "train.epochs=3",
    "train.batch_size=16",
    "model.width=8",
    "train.checkpoint_every_steps=7",
    "train.record_every_steps=1",
)
_KINDS = ("rank", "all ranks", "launcher")
_WITHIN_SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--hangs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="kill_campaign", help="of the result file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = _campaign(Path(folder), arguments)
    kills = [row for row in rows if row["kind"] == "kills"]
    hangs = [row for row in rows if row["kind"] == "hang"]
    targets = [
        target(
            f"{label}, of {len(kills)} runs with three kills each",
            str(len(kills)),
            sum(row[key] for row in kills),
            met=all(row[key] for row in kills),
        )
        for label, key in (
            ("weights sha256-equal to the unbroken run", "equal"),
            ("journals without gap or double", "whole_journal"),
        )
    ]
    for label, key in (
        ("hung rank named", "named_seconds"),
        ("training again after a hang", "again_seconds"),
    ):
        if hangs:
            worst = max(row[key] for row in hangs)
            targets.append(
                target(
                    f"{label}, worst, seconds", f"<= {_WITHIN_SECONDS}", worst, met=worst <= _WITHIN_SECONDS
                )
            )
    command = "make kill-campaign"
    if arguments.overrides:
        command += f" SET={' '.join(arguments.overrides)!r} NAME={arguments.name}"
    question = "Do kills and hangs at random steps change the trained model?"
    write_result(arguments.name, question, rows, targets, ["torch"], command=command)


def _campaign(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    project = folder / "project"
    shutil.copytree(ROOT / "recipes", project / "recipes")
    (project / "dvc.yaml").touch()
    plan = make_plan(project, *_SMALL, "distributed.max_restarts=10", *arguments.overrides)
    unbroken = folder / "unbroken"
    training = start_training(unbroken, plan)
    if training.wait(600):
        raise SystemExit((unbroken / "told.txt").read_text())
    steps, wanted = len(trained_steps(unbroken)), weights_of(unbroken)
    per_epoch = steps // plan["train"]["epochs"]
    chance = random.Random(arguments.seed)
    rows = []
    for number in range(arguments.runs):
        moments = sorted(chance.sample(range(2, steps - 40), len(_KINDS)))
        kinds = chance.sample(_KINDS, len(_KINDS))
        run_dir = folder / f"run-{number}"
        started = time.monotonic()
        done = _train_through(run_dir, plan, list(zip(moments, kinds, strict=True)), chance)
        row = {
            "kind": "kills",
            "run": number,
            "kills": [{"step": at, "epoch": (at - 1) // per_epoch, "what": what} for at, what in done],
            "equal": weights_of(run_dir) == wanted,
            "whole_journal": trained_steps(run_dir) == list(range(1, steps + 1)),
            "seconds": round(time.monotonic() - started, 1),
        }
        print(row, flush=True)
        rows.append(row)
        shutil.rmtree(run_dir)
    for number in range(arguments.hangs):
        rows.append(_hang(folder / f"hang-{number}", plan, chance.randrange(2, steps - 40), wanted))
        print(rows[-1], flush=True)
    return rows


def _train_through(
    run_dir: Path, plan: dict[str, Any], kills: list[tuple[int, str]], chance: random.Random
) -> list[tuple[int, str]]:
    """Train to the end, killing `what` when step `at` is journalled; return the steps reached then."""
    training, done = start_training(run_dir, plan), []
    for at, what in kills:
        await_journal(run_dir, at, training)
        ranks = find_ranks(run_dir)
        reached = trained_steps(run_dir)[-1]
        if what == "launcher":
            _launcher_of(training).kill()
            training.wait(60)  # the command fails, and the same command goes on
            await_true(lambda: not find_ranks(run_dir), seconds=15, what="no orphan rank")
            training = start_training(run_dir, plan)
        else:
            for rank in ranks if what == "all ranks" else [chance.choice(ranks)]:
                rank.kill()
            dead = {rank.pid for rank in ranks}
            # What the next kill waits for must be done by the new ranks, not be left in the journal.
            await_true(partial(_are_replaced, run_dir, dead), seconds=60, what="new ranks")
        done.append((reached, what))
    if training.wait(600):
        raise SystemExit((run_dir / "told.txt").read_text())
    return done


def _are_replaced(run_dir: Path, dead: set[int]) -> bool:
    present = {rank.pid for rank in find_ranks(run_dir)}
    return (bool(present) and not present & dead) or (run_dir / "result.json").exists()


def _launcher_of(training: subprocess.Popen[str]) -> psutil.Process:
    (launcher,) = psutil.Process(training.pid).children()
    return launcher


def _hang(run_dir: Path, plan: dict[str, Any], at: int, wanted: str) -> dict[str, Any]:
    """Stop a rank (SIGSTOP), with the recipe's default timeout; when is it named, when do steps go on?"""
    training = start_training(run_dir, plan)
    await_journal(run_dir, at, training)
    os.kill(find_ranks(run_dir)[-1].pid, signal.SIGSTOP)
    stopped = time.monotonic()
    time.sleep(1)
    reached = trained_steps(run_dir)[-1]
    await_true(lambda: bool(read_faults(run_dir)), seconds=120, what="the hang is named")
    named = time.monotonic() - stopped
    await_journal(run_dir, reached + 1, training)
    again = time.monotonic() - stopped
    if training.wait(600):
        raise SystemExit((run_dir / "told.txt").read_text())
    return {
        "kind": "hang",
        "step": reached + 1,
        "told": read_faults(run_dir)[0]["text"],
        "named_seconds": round(named, 1),
        "again_seconds": round(again, 1),
        "equal": weights_of(run_dir) == wanted,
    }


if __name__ == "__main__":
    main()
