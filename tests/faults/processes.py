"""Real processes for the fault tests: a cast to kill, its ranks, servers to end or to freeze."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from recaster.training.journal import read_journal

RUN = """
import sys
from pathlib import Path
from recaster import pipeline
from recaster.core.errors import RecasterError
from recaster.core.progress import SilentReporter
from recaster.core.settings import quiet_dependencies
quiet_dependencies()
try:
    pipeline.run(pipeline.open_cast(Path(sys.argv[1]), sys.argv[2:]), SilentReporter())
except RecasterError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
SLOW = (
    "train.epochs=30",
    "train.batch_size=32",
    "train.record_every_steps=1",
    "model.width=8",
    "evaluate.bootstrap_samples=100",
    "gate.bars.0.min=0.3",
    "gate.bars.1.max=3.0",
)
"""Overrides that leave time, about five seconds, to disturb the training."""


def start_cast(project: Path, *overrides: str, code: str = RUN, **environment: str) -> subprocess.Popen[str]:
    """The whole cast of digits in a process of its own, without Prefect."""
    recipe = str(project / "recipes" / "digits.yaml")
    return subprocess.Popen(
        [sys.executable, "-c", code, recipe, *overrides],
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )


def start_command(project: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`recaster ARGUMENTS` in `project`, to be disturbed while it runs."""
    return subprocess.Popen(
        [sys.executable, "-m", "recaster.cli", *arguments],
        cwd=project,
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        # As under a terminal: a shell's background job would have it ignored, and hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )


def await_true(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def await_step(project: Path, step: int, process: subprocess.Popen[str]) -> Path:
    """Wait until training has journalled `step`; return the run directory."""
    found: list[Path] = []

    def reached() -> bool:
        assert process.poll() is None, f"the cast ended with {process.returncode} before step {step}"
        journals = (project / ".recaster" / "steps" / "train").glob("*.work/journal.jsonl")
        found.extend(
            journal.parent
            for journal in journals
            if any(record["step"] >= step for record in read_journal(journal))
        )
        return bool(found)

    await_true(reached, seconds=120, what=f"step {step}")
    return found[0]


def find_ranks(run_dir: Path) -> list[psutil.Process]:
    """The live training processes of a run."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if "recaster.training" in line and str(run_dir) in line:
            found.append(process)
    return found


@contextmanager
def lone_rank() -> Iterator[None]:
    """Make this process the only rank of a process group."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_mlflow(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A real MLflow server over SQLite in `folder`, answering."""
    import urllib.request

    folder.mkdir(exist_ok=True)
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--artifacts-destination", (folder / "artifacts").as_uri()),
        ],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )

    def answers() -> bool:
        assert server.poll() is None, "the MLflow server ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return True
        except OSError:
            return False

    await_true(answers, seconds=120, what="MLflow answers")
    return server


def signal_family(process: psutil.Process, number: int) -> None:
    """Send the signal to the process and all below it."""
    for member in [*process.children(recursive=True), process]:
        member.send_signal(number)
