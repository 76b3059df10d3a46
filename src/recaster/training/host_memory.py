"""What this process holds of the host's memory: freed activations stay with it, for the next step."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's malloc.h."""
_LARGEST_BLOCK = 1 << 30
"""Blocks above this many bytes still go back to the system as soon as they are freed."""
_SMALL_BLOCK = 1 << 20
"""Blocks above this many bytes are apart where a phase asks for it."""
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free; whether this system can.

    By default it gives blocks of more than 32 MB back when they are freed, and the heap's end when more
    than twice that is free, so each step pays for mapping and zeroing its activations anew: a quarter of a
    small CNN's step (docs/howto/training-engine.md).
    """
    return _set(_TRIM_THRESHOLD, _LARGEST_INT) and _set(_MMAP_THRESHOLD, _LARGEST_BLOCK)


@contextmanager
def separate_blocks() -> Iterator[None]:
    """Give each larger block of the body memory of its own, which goes back as soon as it is freed.

    For a phase that needs other sizes than the steps: in what these have left in pieces its blocks find
    room or not, as chance has it, and what it leaves they cannot use. So its peak is what it needs, at
    the price of mapping its blocks.
    """
    give_back_memory()
    _set(_MMAP_THRESHOLD, _SMALL_BLOCK)
    try:
        yield
    finally:
        _set(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        give_back_memory()


def give_back_memory() -> None:
    """Let glibc give the system all that is free now, also in between what is in use."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _set(option: int, value: int) -> bool:
    mallopt = _glibc("mallopt")
    return mallopt is not None and bool(mallopt(option, value))


def _glibc(name: str) -> Callable[..., int] | None:
    """One of its functions; None elsewhere (musl has none of these)."""
    found: Callable[..., int] | None = None
    if sys.platform.startswith("linux"):
        found = getattr(ctypes.CDLL(None), name, None)
    return found


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
