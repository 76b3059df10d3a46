"""Each rank's sign of life: where it is, and which collective it waits in.

RUN_DIR/heartbeats/rank-00001.json, once a second, overwritten in place:
{"rank": 1, "host": "a", "pid": 4711, "group": "10.0.0.1:40123/2", "beat": 61, "notes": 112,
 "step": 37, "phase": "step", "waits_in": "all_reduce"}

The training thread only stores a pair (`note`, under a microsecond); a thread beside it writes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recaster.core.files import storage_errors

HEARTBEATS = "heartbeats"
PATIENT_PHASES = ("start", "compile", "save")
"""What may take ten times the hang timeout: imports and joining, a first compiled step, a checkpoint."""
_BEAT_SECONDS = 1.0
_ASK_SECONDS = 3.0
_RECORD_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One rank as its own thread last saw it."""

    rank: int
    host: str
    pid: int
    group: str
    """Same for all ranks that were started together, another after each restart."""
    beat: int
    """Counts up while the process runs at all."""
    notes: int
    """Counts up while training gets on."""
    step: int
    """Optimizer steps completed."""
    phase: str
    waits_in: str
    """The oldest collective that has not ended; looked up only where the rank is not getting on."""


class _Place:
    """What the training thread last noted; replaced as a whole, so that no lock is needed."""

    __slots__ = ("noted",)

    def __init__(self) -> None:
        self.noted = (0, "start")


_PLACE = _Place()


def note(*, step: int, phase: str) -> None:
    """Say that training got on: `step` optimizer steps are completed and `phase` begins.

    Args:
        phase: a word for people such as `data`, `step`, `validate`, or one of PATIENT_PHASES.
    """
    _PLACE.noted = (step, phase)


def note_again() -> None:
    """Say that training got on within the phase it is in: one of many batches was validated."""
    step, phase = _PLACE.noted
    _PLACE.noted = (step, phase)


@contextmanager
def heartbeat(run_dir: Path) -> Iterator[None]:
    """Write this rank's beat in `run_dir` once a second; one that ends in order takes it away.

    Raises:
        StorageError: there is no room for it at the start; later it needs none.
    """
    path = run_dir / HEARTBEATS / f"rank-{int(os.environ['RANK']):05d}.json"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A network file system would keep a beat for up to half a minute before other hosts see it.
        at_once = os.O_DSYNC if os.environ["WORLD_SIZE"] != os.environ["LOCAL_WORLD_SIZE"] else 0
        file = os.open(path, os.O_RDWR | os.O_CREAT | at_once, 0o644)
        # Reserved here and overwritten in place: a disk that fills up later must not look like a hang.
        os.pwrite(file, b" " * _RECORD_BYTES, 0)
    threading.Thread(target=_beat_on, args=(file,), name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_beats(run_dir: Path) -> Iterator[Beat]:
    """The newest beat of each rank; one that is just being written is left out."""
    for path in sorted((run_dir / HEARTBEATS).glob("rank-*.json")):
        with suppress(OSError, ValueError, TypeError):
            yield Beat(**json.loads(path.read_bytes()))


def _beat_on(file: int) -> None:
    group = "{MASTER_ADDR}:{MASTER_PORT}/{WORLD_SIZE}".format(**os.environ)
    rank, host, pid = int(os.environ["RANK"]), socket.gethostname(), os.getpid()
    noted, notes, changed, beat = _PLACE.noted, 0, time.monotonic(), 0
    while True:
        if _PLACE.noted is not noted:
            noted, notes, changed = _PLACE.noted, notes + 1, time.monotonic()
        quiet = time.monotonic() - changed > _ASK_SECONDS
        record = Beat(
            rank=rank,
            host=host,
            pid=pid,
            group=group,
            beat=beat,
            notes=notes,
            step=noted[0],
            phase=noted[1],
            waits_in=_find_collective() if quiet else "",
        )
        with suppress(OSError):  # the next beat tries again; training must not end for it
            os.pwrite(file, json.dumps(asdict(record)).encode().ljust(_RECORD_BYTES), 0)
        beat += 1
        time.sleep(_BEAT_SECONDS)


def _find_collective() -> str:
    """The oldest collective that has not ended, by torch's flight recorder; empty for none."""
    dist = sys.modules.get("torch.distributed")  # an import would wait for one that is under way
    if dist is None or not getattr(dist, "is_initialized", bool)():
        return ""
    recorder: Any = sys.modules["torch._C._distributed_c10d"]
    for name in ("_dump_fr_trace_json", "_dump_nccl_trace_json"):  # of gloo, of NCCL
        if dump := getattr(recorder, name, None):
            for entry in json.loads(dump(True, True)).get("entries", []):
                if not entry["retired"]:
                    return str(entry["profiling_name"].partition(":")[2])
    return ""
