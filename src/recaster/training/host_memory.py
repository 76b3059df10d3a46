"""What this process holds of the host's memory: freed activations stay with it, for the next step."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's malloc.h."""
_LARGEST_BLOCK = 1 << 30
"""Blocks above this many bytes still go back to the system as soon as they are freed."""
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free; whether this system can.

    By default it gives blocks of more than 32 MB back when they are freed, and the heap's end when more
    than twice that is free, so each step pays for mapping and zeroing its activations anew: a quarter of a
    small CNN's step (docs/howto/training-engine.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(
        mallopt(_TRIM_THRESHOLD, _LARGEST_INT) and mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    )


def give_back_memory() -> None:
    """Let glibc give the system all that is free now, also in between what is in use.

    Between phases that need blocks of other sizes: else each phase's peak comes on top of what the other
    has left in pieces.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_resident() -> int:
    """The most bytes of RAM that this process held at once.

    Linux's own mark begins anew with each program; `getrusage` also counts what the process was before
    exec, a copy of its parent.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (mark,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(mark) * 1024
