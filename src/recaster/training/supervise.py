"""The parent's side of a run: start the ranks, follow their journal, pass errors on.

Imports no torch: the parent may be a Prefect task.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from recaster.core import errors
from recaster.core.files import disk_full, free_bytes, read_json, write_json
from recaster.core.progress import Progress, Reporter
from recaster.distributed.elastic import FAILURE
from recaster.distributed.heartbeat import HEARTBEATS
from recaster.distributed.watchdog import FAULTS, newest_step
from recaster.training.journal import JOURNAL, read_journal

_POLL_SECONDS = 0.25
_FORWARD_SECONDS = 2.0
_STOP_SECONDS = 10
_LOG_LINES = 15
_FULL_BYTES = 1 << 16
_LAUNCHERS = {
    "local": "recaster.distributed.launch",
    "torchrun": "recaster.distributed.launch",
    "ray": "recaster.distributed.ray_launcher",
}


class Forwarder(Protocol):
    """Sends journal records on to a tracking server."""

    def forward(self, durable_step: int) -> None:
        """Send what is new up to `durable_step`; never raise for a server's trouble."""


def train(run_dir: Path, plan: dict[str, Any], *, reporter: Reporter, forwarder: Forwarder) -> dict[str, Any]:
    """Train in `run_dir` as `plan` says, going on from its newest checkpoint; return the result.

    Raises:
        DivergedError, CheckpointError: raised by a rank.
        TrainingError: the ranks ended without a result.
    """
    write_json(run_dir / "plan.json", plan)
    (run_dir / FAILURE).unlink(missing_ok=True)
    if not (run_dir / "result.json").exists():
        log = run_dir / "ranks.log"
        _invite_hosts(run_dir, plan["distributed"], reporter)
        with log.open("ab") as output:
            launcher = subprocess.Popen(
                _command(run_dir, plan),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                _follow(launcher, run_dir, reporter, forwarder)
            finally:
                _stop(launcher)
        _raise_failure(run_dir, log, launcher.returncode)
    _report_damage(run_dir / "ranks.log", reporter)
    shutil.rmtree(run_dir / HEARTBEATS, ignore_errors=True)
    result: dict[str, Any] = read_json(run_dir / "result.json")
    return result


def _command(run_dir: Path, plan: dict[str, Any]) -> list[str]:
    module = _LAUNCHERS[plan["distributed"]["launcher"]]
    return [sys.executable, "-m", module, "--with-parent", str(run_dir)]


def _invite_hosts(run_dir: Path, section: dict[str, Any], reporter: Reporter) -> None:
    if section["launcher"] == "torchrun" and section["nodes"] > 1:
        reporter.say(
            f"waiting at {section['rendezvous']} for {section['nodes'] - 1} more hosts that see this folder; "
            f"type on each: python -m recaster.distributed.launch '{run_dir}'"
        )


def _follow(
    launcher: subprocess.Popen[bytes], run_dir: Path, reporter: Reporter, forwarder: Forwarder
) -> None:
    journal, shown, forwarded, size = run_dir / JOURNAL, 0, 0.0, -1
    faults = _FaultReader(run_dir / FAULTS)
    # A thread of its own: a tracking server that hangs must not hold up the progress or an interrupt.
    with ThreadPoolExecutor(1, thread_name_prefix="journal") as sender:
        sending: Future[None] | None = None
        while launcher.poll() is None:
            time.sleep(_POLL_SECONDS)
            faults.tell(reporter)
            present = journal.stat().st_size if journal.exists() else -1
            if present == size:
                continue
            size = present
            trained = [record for record in read_journal(journal) if record["kind"] == "train"]
            if trained and trained[-1]["step"] != shown:
                shown = trained[-1]["step"]
                reporter.advance(_to_progress(trained[-1]))
            if time.monotonic() - forwarded > _FORWARD_SECONDS and (sending is None or sending.done()):
                sending = sender.submit(forwarder.forward, newest_step(run_dir))
                forwarded = time.monotonic()
    faults.tell(reporter)


class _FaultReader:
    """Tells people of each fault once, from where the list ended when this run began."""

    def __init__(self, path: Path) -> None:
        self._path, self._told = path, len(self._lines(path))

    def tell(self, reporter: Reporter) -> None:
        lines = self._lines(self._path)
        for line in lines[self._told :]:
            reporter.say(f"warning: {json.loads(line)['text']}")
        self._told = len(lines)

    @staticmethod
    def _lines(path: Path) -> list[bytes]:
        return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _to_progress(record: dict[str, Any]) -> Progress:
    rate = record["samples_per_second"]
    return Progress(
        step=record["step"],
        steps=record["steps"],
        loss=record["loss"],
        samples_per_second=rate,
        seconds_left=record["seconds_left"],
    )


def _stop(launcher: subprocess.Popen[bytes]) -> None:
    if launcher.poll() is not None:
        return
    launcher.terminate()  # the launcher ends its ranks
    try:
        launcher.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()


def _raise_failure(run_dir: Path, log: Path, code: int) -> None:
    if (run_dir / FAILURE).exists():
        failure = read_json(run_dir / FAILURE)
        kind = getattr(errors, failure["kind"])
        raise kind(failure["what"], where=failure["where"], value=failure["value"], repair=failure["repair"])
    if not (run_dir / "result.json").exists():
        if free_bytes(run_dir) < _FULL_BYTES:  # then the ranks could not even write why they ended
            raise disk_full(run_dir)
        tail = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        raise errors.TrainingError(
            "Training ended without a result.",
            where=str(log),
            value=f"exit code {code}\n" + "\n".join(tail),
            repair="read the log; the same command goes on from the newest checkpoint",
        )


def _report_damage(log: Path, reporter: Reporter) -> None:
    if log.exists():
        for line in dict.fromkeys(log.read_text(errors="replace").splitlines()):
            if line.startswith("warning: checkpoint"):
                reporter.say(line)
