"""This process's memory as the kernel counts it (Linux's /proc).

resident       bytes in RAM: what the process made, and the pages of files it mapped and touched
address space  bytes it has addresses for; what `ulimit -v` bounds
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SELF = Path("/proc/self")
_KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedFiles:
    """The memory-mapped shards: the kernel takes their pages back when memory is short."""

    size: int
    """Bytes."""
    resident: int
    """Of these, bytes that were touched and are in RAM."""


def reset_peak() -> None:
    """Let `host_memory.peak_resident` begin again from what is resident now."""
    (_SELF / "clear_refs").write_text("5")


def peak_address_space() -> int:
    """The most bytes of address space that were taken at once."""
    lines = (_SELF / "status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmPeak:"))
    return int(peak) * _KIB


def mapped_files(suffix: str) -> MappedFiles:
    """The files whose names end in `suffix` that this process has mapped now."""
    size = resident = 0
    inside = False
    for line in (_SELF / "smaps").read_text().splitlines():
        key, *rest = line.split()
        if not key.endswith(":"):
            inside = line.endswith(suffix)
        elif inside and key == "Size:":
            size += int(rest[0]) * _KIB
        elif inside and key == "Rss:":
            resident += int(rest[0]) * _KIB
    return MappedFiles(size=size, resident=resident)


def volunteer_for_killing() -> None:
    """Be the first process that the kernel ends when the host runs out of memory."""
    (_SELF / "oom_score_adj").write_text("1000")
