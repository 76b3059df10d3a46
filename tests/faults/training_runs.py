"""A training run without the rest of a cast, to disturb: its plan, its processes, its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recaster import pipeline
from recaster.core.files import read_json
from recaster.core.hashing import hash_file
from recaster.core.progress import SilentReporter
from recaster.pipeline.inputs import training_plan
from recaster.training.journal import read_journal
from tests.faults.processes import await_true

_TRAIN = """
import json, sys
from pathlib import Path
from recaster.core.errors import RecasterError
from recaster.core.progress import SilentReporter
from recaster.training import supervise

class Lines(SilentReporter):
    def say(self, message):
        print(message, file=sys.stderr, flush=True)

class Nowhere:
    def forward(self, durable_step):
        pass

try:
    run_dir = Path(sys.argv[1])
    plan = json.loads((run_dir / "asked.json").read_text())
    supervise.train(run_dir, plan, reporter=Lines(), forwarder=Nowhere())
except RecasterError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
SLOWED = (
    "train.epochs=3",
    "train.batch_size=16",
    "model.width=8",
    "train.checkpoint_every_steps=10",
    "train.record_every_steps=1",
)
"""Overrides for a couple of hundred small steps."""


def make_plan(project: Path, *overrides: str) -> dict[str, Any]:
    """The data steps of the digits cast, and the plan that its training would get."""
    cast = pipeline.open_cast(project / "recipes" / "digits.yaml", overrides)
    snapshot = pipeline.snapshot(cast, SilentReporter())
    validation = pipeline.validate(cast, snapshot)
    return training_plan(cast, pipeline.prepare(cast, snapshot, validation))


def start_training(
    run_dir: Path, plan: dict[str, Any], prefix: Sequence[str] = (), **environment: str
) -> subprocess.Popen[str]:
    """Train as `plan` says in a process of its own; what it tells people goes to `run_dir`/told.txt.

    Args:
        prefix: words before the command, that run it elsewhere.
    """
    run_dir.mkdir(exist_ok=True, parents=True)
    (run_dir / "asked.json").write_text(json.dumps(plan))
    with (run_dir / "told.txt").open("a") as told:
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", _TRAIN, str(run_dir)],
            start_new_session=True,
            stderr=told,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )


def await_journal(run_dir: Path, step: int, process: subprocess.Popen[str], *, seconds: float = 120) -> None:
    """Wait until training has journalled `step`."""

    def reached() -> bool:
        if any(record["step"] >= step for record in read_journal(run_dir / "journal.jsonl")):
            return True
        assert process.poll() is None, f"training ended with {process.returncode} before step {step}"
        return False

    await_true(reached, seconds=seconds, what=f"step {step}")


def read_faults(run_dir: Path) -> list[dict[str, Any]]:
    """The faults that the launcher recorded."""
    path = run_dir / "faults.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def weights_of(run_dir: Path) -> str:
    """The sha256 of the final weights, as the run says and as the file is."""
    found = hash_file(run_dir / "weights.safetensors")
    assert read_json(run_dir / "result.json")["weights_sha256"] == found
    return found


def trained_steps(run_dir: Path) -> list[int]:
    """The steps of the journal's training records, in its order."""
    return [record["step"] for record in read_journal(run_dir / "journal.jsonl") if record["kind"] == "train"]
