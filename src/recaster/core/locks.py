"""A lock that the operating system frees when its holder dies, however it dies.

A killed process cannot clean up, so the lock is `flock` on a file, not the file's existence.
The file's text says who holds it, for the message only.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from recaster.core.clock import now
from recaster.core.errors import LockHeldError
from recaster.core.files import storage_errors

_POLL_SECONDS = 0.2


@contextmanager
def hold_lock(
    path: Path, *, name: str, wait_seconds: float, on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the lock file `path` for the body; wait up to `wait_seconds` for another holder.

    Args:
        name: what is locked, for messages.
        on_wait: told once who holds the lock, when waiting begins.

    Raises:
        LockHeldError: the holder did not finish in time.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        _acquire(file, path, name, wait_seconds, on_wait)
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": now()}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _acquire(
    file: IO[str], path: Path, name: str, wait_seconds: float, on_wait: Callable[[str], None] | None
) -> None:
    deadline, told = time.monotonic() + wait_seconds, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = read_holder(path)
        if time.monotonic() >= deadline:
            raise LockHeldError(
                f"{name} is held by another cast.",
                where=str(path),
                value=holder,
                repair="wait for it to end, or run without --no-wait; a holder that dies frees the lock",
            )
        if on_wait and not told:
            on_wait(f"{name} is held by {holder}; waiting")
            told = True
        time.sleep(_POLL_SECONDS)


def read_holder(path: Path) -> str:
    """Who wrote the lock file last, as 'process PID on HOST since TIME'."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return "a process that just started"
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock file."""
    if not path.exists():
        return False
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
