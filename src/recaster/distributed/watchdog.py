"""Find the rank that hangs, name it, kill it: the launcher of each host watches its ranks' heartbeats.

A rank hangs when its process shows no life, or when no rank gets on and it is not in the collective
that the others wait in. Torch's elastic agent sees it die and starts all ranks again.

RUN_DIR/faults.jsonl: {"kind": "hang", "ranks": [1], "step": 37, "collective": "all_reduce", …}
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaster.core.errors import StorageError
from recaster.core.files import storage_errors
from recaster.distributed.heartbeat import PATIENT_PHASES, Beat, read_beats

FAULTS = "faults.jsonl"
_LOOK_SECONDS = 0.5
_PATIENCE = 10
_OTHER_HOST_SECONDS = 5.0
"""How long the host of a hung rank has to kill it before the others start again without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Ranks that hold up all the others."""

    beats: tuple[Beat, ...]
    """Of the hung ranks."""
    step: int
    """The step that does not end, from 1; by the others, since a frozen one's beat is old."""
    phase: str
    collective: str
    """What the other ranks wait in; empty where there is none."""
    others: bool
    """Whether there are other ranks; else all hang together."""
    seconds: float
    frozen: bool
    """Whether their processes show no life at all."""

    def describe(self) -> str:
        """One line for people: which ranks, where, since when, and what waits for them."""
        names = ", ".join(f"rank {beat.rank} (process {beat.pid} on {beat.host})" for beat in self.beats)
        hangs = "hangs" if len(self.beats) == 1 else "hang"
        sign = "no sign of life" if self.frozen else "no progress"
        who = "the other ranks wait" if self.others else "waiting"
        waits = f"; {who} in {self.collective}" if self.collective else ""
        return (
            f"{names} {hangs} in step {self.step}, phase {self.phase}: {sign} for {self.seconds:.0f} s{waits}"
        )


class Vigil:
    """Remembers when each rank last showed life and last got on; holds no thread and no clock."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._alive: dict[tuple[str, int], tuple[int, float]] = {}
        self._moved: dict[tuple[str, int], tuple[int, float]] = {}

    def look(self, beats: Iterable[Beat], now: float) -> Hang | None:
        """Take the newest `beats` of one group at `now` (seconds); return the hang there is, if any."""
        members = list(beats)
        for beat in members:
            key = (beat.host, beat.pid)
            self._alive[key] = self._since(self._alive.get(key), beat.beat, now)
            self._moved[key] = self._since(self._moved.get(key), beat.notes, now)
        if not members:
            return None
        silent = {beat.rank: now - self._alive[beat.host, beat.pid][1] for beat in members}
        frozen = tuple(beat for beat in members if silent[beat.rank] > self._timeout)
        if frozen:
            return _hang(members, frozen, seconds=max(silent.values()), frozen=True)
        still = min(now - self._moved[beat.host, beat.pid][1] for beat in members)
        patient = any(beat.phase in PATIENT_PHASES for beat in members)
        if still <= self._timeout * (_PATIENCE if patient else 1):
            return None
        absent = tuple(beat for beat in members if not beat.waits_in)
        hung = absent if 0 < len(absent) < len(members) else tuple(members)
        return _hang(members, hung, seconds=still, frozen=False)

    @staticmethod
    def _since(seen: tuple[int, float] | None, value: int, now: float) -> tuple[int, float]:
        return seen if seen and seen[0] == value else (value, now)


def _hang(members: list[Beat], hung: tuple[Beat, ...], *, seconds: float, frozen: bool) -> Hang:
    others = [beat for beat in members if beat not in hung]
    furthest = max(others if frozen and others else members, key=lambda beat: beat.step)
    return Hang(
        beats=hung,
        step=furthest.step + 1,
        phase=furthest.phase,
        collective=next((beat.waits_in for beat in (*others, *hung) if beat.waits_in), ""),
        others=bool(others),
        seconds=seconds,
        frozen=frozen,
    )


class Watchdog:
    """A thread that watches the ranks of `run_dir`, and kills those of this process that hang."""

    def __init__(self, run_dir: Path, *, timeout_seconds: float, clock: Callable[[], float]) -> None:
        self._run_dir, self._clock = run_dir, clock
        self._vigil = Vigil(timeout_seconds)
        self._over = threading.Event()
        self._given_up: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching; the ranks are left as they are."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            beats = list(read_beats(self._run_dir))
            mine = {beat.group for beat in beats if _is_child(beat)}
            for group in mine:
                together = [beat for beat in beats if beat.group == group]
                if hang := self._vigil.look(together, self._clock()):
                    self._end(hang, together)

    def _end(self, hang: Hang, together: list[Beat]) -> None:
        """Kill the hung ranks of this host; where all are elsewhere, leave them a while, then start anew."""
        mine = [beat for beat in hang.beats if _is_child(beat)]
        if not mine:
            since = self._given_up.setdefault(together[0].group, self._clock())
            if self._clock() - since < _OTHER_HOST_SECONDS:
                return
            mine = [beat for beat in together if _is_child(beat)]
        for beat in mine:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(beat.pid, signal.SIGKILL)
        if mine[0] == hang.beats[0] or mine[0] not in hang.beats:  # one host tells of it
            self._report(hang)

    def _report(self, hang: Hang) -> None:
        resumes_at = newest_step(self._run_dir)
        text = f"{hang.describe()}. Killed; going on from step {resumes_at}."
        sys.stderr.write(f"warning: {text}\n")
        fault = {
            "kind": "hang",
            "ranks": [beat.rank for beat in hang.beats],
            "step": hang.step,
            "phase": hang.phase,
            "collective": hang.collective,
            "silent_seconds": round(hang.seconds, 1),
            "resumes_at": resumes_at,
            "text": text,
        }
        with suppress(StorageError):  # no room for it: the log has the line, and watching goes on
            record_fault(self._run_dir, fault)


def record_fault(run_dir: Path, fault: dict[str, Any]) -> None:
    """Append one fault, with the time, to the run's list; people are told its `text`."""
    line = json.dumps({**fault, "time": time.time()}) + "\n"
    path = run_dir / FAULTS
    with storage_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(line)


def newest_step(run_dir: Path) -> int:
    """The step of the newest checkpoint in `run_dir`, 0 where there is none."""
    folder = run_dir / "checkpoints"
    return max(
        (int(path.name) for path in (folder.iterdir() if folder.exists() else ()) if path.name.isdigit()),
        default=0,
    )


def _is_child(beat: Beat) -> bool:
    """Whether the beat's process lives and was started by this one: no other may be killed."""
    if beat.host != socket.gethostname():
        return False
    try:
        stat = Path(f"/proc/{beat.pid}/stat").read_text()
    except OSError:
        return False
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state != "Z" and int(parent) == os.getpid()
