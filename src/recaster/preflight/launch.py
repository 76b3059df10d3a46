"""The parent's side of a probe: start its ranks on this host, wait for them, read what they found."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recaster.core.errors import RecasterError, ResourceError, TrainingError
from recaster.core.files import read_json, write_json
from recaster.distributed.elastic import PLAN
from recaster.preflight.limits import ADDRESS_SPACE, RESIDENT, MemoryLimit, tightest
from recaster.training.failures import raise_failure

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 3.0
"""Between the time when a probe should have ended and the time when it is ended."""
_LOG_LINES = 15


def probe(
    folder: Path, plan: dict[str, Any], *, limits: list[MemoryLimit], seconds: float
) -> list[dict[str, Any]]:
    """Let this host's ranks train `plan` in miniature in `folder`, which is removed; return what each found.

    Where memory runs out a smaller pass is tried, as long as there is time. A rank that the kernel ended for
    want of memory, or that took too long, leaves what it found before.

    Args:
        seconds: of wall time, from now.

    Raises:
        RecipeError: the model or the device cannot do what the recipe asks.
        ResourceError: memory does not hold the model.
        TrainingError: a rank ended without a reason, or was not ready in time.
    """
    started = time.time()
    ends_at = started + seconds
    first = found = _probe_once(folder, plan, limits, ends_at)
    took = time.time() - started
    while (rows := _halved(found)) and time.time() + took < ends_at:
        smaller = {**plan, "train": {**plan["train"], "micro_batch_size": rows}}
        found = _probe_once(folder, smaller, limits, ends_at)
    if found is first or not all("miniature" in rank for rank in found):
        return first
    return [{**one, "miniature": other["miniature"]} for one, other in zip(first, found, strict=True)]


def _halved(found: list[dict[str, Any]]) -> int:
    """Half of the rows for which memory ran out; 0 where it did not, or with one row."""
    return min((rank["ran_out"]["rows"] // 2 for rank in found if "ran_out" in rank), default=0)


def _probe_once(
    folder: Path, plan: dict[str, Any], limits: list[MemoryLimit], ends_at: float
) -> list[dict[str, Any]]:
    resident, addresses = tightest(limits, RESIDENT), tightest(limits, ADDRESS_SPACE)
    try:
        write_json(folder / PLAN, plan)
        write_json(
            folder / "allowance.json",
            {
                "ends_at": ends_at,
                "resident_bytes": resident.bytes if resident else None,
                "address_space_bytes": addresses.bytes if addresses else None,
            },
        )
        codes, killed = _run_ranks(folder, plan["distributed"], ends_at + _GRACE_SECONDS)
        raise_failure(folder)
        found = [read_json(path) for path in sorted(folder.glob("probe-*.json"))]
        if killed and found:
            ran_out = {"rows": found[0]["size"], "reason": "the kernel ended the process"}
            found[0].setdefault("ran_out", ran_out)
        if not any("ran_out" in rank for rank in found):
            _raise_crash(folder, codes)
        if not found:
            raise _not_built(killed=killed)
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_ranks(folder: Path, section: dict[str, Any], until: float) -> tuple[list[int], bool]:
    """The ranks' exit codes, and whether the kernel ended one of them."""
    command = [sys.executable, "-u", "-m", "recaster.preflight", str(folder)]
    with started_ranks(command, section, log=folder / "ranks.log") as ranks:
        while any(rank.poll() is None for rank in ranks) and time.time() < until:
            if any(rank.returncode for rank in ranks):  # the others would wait for it in vain
                break
            time.sleep(_POLL_SECONDS)
        killed = any(rank.poll() == -signal.SIGKILL for rank in ranks)
    return [rank.returncode for rank in ranks], killed


@contextmanager
def started_ranks(
    command: list[str], section: dict[str, Any], *, log: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`command` as each rank of this host, with torch's variables set; killed on the way out.

    Args:
        section: the plan's `distributed`.
        log: what they print.
    """
    ranks = section["ranks"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(section["threads_per_rank"]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
    }
    started: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as output:
        try:
            for rank in range(ranks):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                started.append(
                    subprocess.Popen(
                        command,
                        stdout=output,
                        stderr=output,
                        stdin=subprocess.DEVNULL,
                        env={**environment, **place},
                    )
                )
            yield started
        finally:
            for process in started:
                process.kill()
            for process in started:
                process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _raise_crash(folder: Path, codes: list[int]) -> None:
    """A rank that was killed ran out of memory or of time; any other end has a reason in the log."""
    bad = [code for code in codes if code not in {0, -signal.SIGKILL}]
    if bad:
        tail = (folder / "ranks.log").read_text(errors="replace").splitlines()[-_LOG_LINES:]
        raise TrainingError(
            "The probe ended without a result.",
            where="recaster check",
            value=f"exit code {bad[0]}\n" + "\n".join(tail),
            repair="read the lines above; `recaster train` would end in the same way",
        )


def _not_built(*, killed: bool) -> RecasterError:
    if killed:
        return ResourceError(
            "Too little memory for this model; no step was taken.",
            where="model",
            value="the kernel ended the process that built it",
            repair="use a smaller model, or strategy fsdp over more ranks",
        )
    return TrainingError(
        "The model was not ready in the time that a check may take.",
        where="recaster check",
        repair="check again when the machine is less busy; `recaster run` does not depend on it",
    )
