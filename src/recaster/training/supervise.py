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
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from recaster.core import errors
from recaster.core.files import disk_full, free_bytes, read_json, write_json
from recaster.core.progress import Progress, Reporter
from recaster.distributed.elastic import FAILURE
from recaster.distributed.heartbeat import HEARTBEATS
from recaster.distributed.watchdog import FAULTS, newest_step
from recaster.training.failures import raise_failure
from recaster.training.journal import JOURNAL, read_journal

_POLL_SECONDS = 0.25
_FORWARD_SECONDS = 2.0
_STOP_SECONDS = 10
_LOG_LINES = 15
_FULL_BYTES = 1 << 16
RANKS_LOG = "ranks.log"
_SPOKEN = ("warning: ", "communication: ", "model: ")
"""How lines of the ranks' log begin that people should see at once."""
_LAUNCHERS = {
    "local": "recaster.distributed.launch",
    "torchrun": "recaster.distributed.launch",
    "ray": "recaster.distributed.ray_launcher",
}


class Forwarder(Protocol):
    """Sends journal records on to a tracking server."""

    def forward(self, durable_step: int) -> None:
        """Send what is new up to `durable_step`; never raise for a server's trouble."""


def train(
    run_dir: Path,
    plan: dict[str, Any],
    *,
    reporter: Reporter,
    forwarder: Forwarder,
    watch: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Train in `run_dir` as `plan` says, going on from its newest checkpoint; return the result.

    Args:
        watch: called several times a second while the ranks run; what it raises ends them, and is raised.

    Raises:
        DivergedError, CheckpointError: raised by a rank.
        TrainingError: the ranks ended without a result.
    """
    write_json(run_dir / "plan.json", plan)
    (run_dir / FAILURE).unlink(missing_ok=True)
    if not (run_dir / "result.json").exists():
        log = run_dir / RANKS_LOG
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
                _follow(launcher, run_dir, reporter, forwarder, watch)
            finally:
                _stop(launcher)
        _raise_failure(run_dir, log, launcher.returncode)
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
    launcher: subprocess.Popen[bytes],
    run_dir: Path,
    reporter: Reporter,
    forwarder: Forwarder,
    watch: Callable[[], None] | None,
) -> None:
    journal, shown, forwarded, size = run_dir / JOURNAL, 0, 0.0, -1
    teller = _Teller(run_dir, reporter)
    # A thread of its own: a tracking server that hangs must not hold up the progress or an interrupt.
    with ThreadPoolExecutor(1, thread_name_prefix="journal") as sender:
        sending: Future[None] | None = None
        while launcher.poll() is None:
            time.sleep(_POLL_SECONDS)
            teller.tell()
            if watch:
                watch()
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
    teller.tell()


class _Teller:
    """Passes on to people what ranks and launcher write for them, from where the files end now."""

    def __init__(self, run_dir: Path, reporter: Reporter) -> None:
        self._reporter = reporter
        self._ends = {path: _size(path) for path in (run_dir / FAULTS, run_dir / RANKS_LOG)}

    def tell(self) -> None:
        """Say what is new; several ranks often say the same."""
        for path, end in self._ends.items():
            if _size(path) > end:
                with path.open("rb") as file:
                    file.seek(end)
                    fresh = file.read().rpartition(b"\n")[0]
                self._ends[path] = end + len(fresh) + 1 if fresh else end
                lines = fresh.decode(errors="replace").splitlines()
                for line in dict.fromkeys(_for_people(line, path.name) for line in lines):
                    if line:
                        self._reporter.say(line)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _for_people(line: str, file: str) -> str:
    if file == FAULTS:
        return f"warning: {json.loads(line)['text']}"
    return line if line.startswith(_SPOKEN) else ""


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
    raise_failure(run_dir)
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
