"""How much memory and disk this host lets a training have, read from the system."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESIDENT, ADDRESS_SPACE, DEVICE = "resident", "address_space", "device"
"""What of a rank's memory a limit bounds."""
_KIB = 1024
_CGROUPS = Path("/sys/fs/cgroup")
_CGROUP_1, _CGROUP_2 = (
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ("memory.max", "memory.current", "inactive_file"),
)
"""The files with a group's limit and use, and the key of memory.stat for pages that can be given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimit:
    """A bound on the memory of one rank."""

    of: str
    """`resident`, `address_space` or `device`."""
    bytes: int
    source: str
    """Where it comes from, for people."""


def read_memory_limits(ranks: int) -> list[MemoryLimit]:
    """What one of `ranks` ranks on this host may take: free memory, the control group's, `ulimit -v`."""
    shared = f" for {ranks} ranks" if ranks > 1 else ""
    limits = [
        MemoryLimit(of=RESIDENT, bytes=free // ranks, source=f"{source}{shared}")
        for free, source in ((_available(), "free memory"), *_cgroup_rooms())
    ]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(MemoryLimit(of=ADDRESS_SPACE, bytes=soft, source="the address space limit (ulimit -v)"))
    return limits


def tightest(limits: Sequence[MemoryLimit], of: str) -> MemoryLimit | None:
    """The smallest of the limits on one kind of memory."""
    return min((limit for limit in limits if limit.of == of), key=lambda limit: limit.bytes, default=None)


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(value) * _KIB


def _cgroup_rooms() -> list[tuple[int, str]]:
    """What each control group that this process is in has left, from the innermost outwards."""
    rooms = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in {"", "memory"}:
            continue
        root, names = (_CGROUPS / controllers, _CGROUP_1) if controllers else (_CGROUPS, _CGROUP_2)
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if not folder.is_relative_to(root):
                break
            if (left := _room(folder, *names)) is not None:
                rooms.append((left, f"the control group {folder.relative_to(root)}"))
    return rooms


def _room(folder: Path, limit: str, use: str, reclaimable: str) -> int | None:
    if not (folder / limit).exists() or (text := (folder / limit).read_text().strip()) == "max":
        return None
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return int(text) - int((folder / use).read_text()) + int(stat.get(reclaimable, 0))
