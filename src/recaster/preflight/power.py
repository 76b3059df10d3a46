"""How much power this host takes: declared, read from its meters, or estimated from its busy cores.

RAPL   /sys/class/powercap/intel-rapl:0/energy_uj    processors; most systems let root alone read it
NVML   libnvidia-ml.so.1                             GPUs
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CORE_WATTS = 8.0
"""Of one busy core with its share of memory, fans and losses: a server's processor takes 200 to 300 W for 32
to 64 cores, and the server about twice what its processor does."""
_PACKAGES = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What this host takes while it trains."""

    watts: float
    source: str
    """Where the figure comes from, for people."""


class PowerMeter:
    """Reads the host's energy counters at its start and at its end."""

    def __init__(self) -> None:
        self._began, self._before = time.monotonic(), {**_read_processors(), **_read_gpus()}

    def mean(self, *, device: str) -> Power | None:
        """The mean since the start; None where what does the work, `cpu` or `cuda`, has no readable meter."""
        seconds = time.monotonic() - self._began
        after = {**_read_processors(), **_read_gpus()}
        joules = {name: value - self._before[name] for name, value in after.items() if name in self._before}
        wanted = "NVML" if device == "cuda" else "RAPL"
        # A counter that began again from zero in between tells nothing.
        if not any(name.startswith(wanted) for name in joules) or min(joules.values()) < 0:
            return None
        kinds = " and ".join(sorted({name.split()[0] for name in joules}))
        return Power(watts=sum(joules.values()) / seconds, source=f"measured by {kinds} during the probe")


def find_power(declared: float | None, measured: Power | None, *, cores: int, device: str) -> Power | None:
    """The best figure there is; None for a GPU without a meter."""
    if declared is not None:
        return Power(watts=declared, source="declared by RECASTER_WATTS")
    if measured or device != "cpu":
        return measured
    return Power(
        watts=cores * CORE_WATTS, source=f"an estimate: {cores} busy cores of {CORE_WATTS:g} W, not measured"
    )


def _read_processors() -> Mapping[str, float]:
    """Joules that each processor package took since some time."""
    counters = {}
    for package in sorted(_PACKAGES.glob("intel-rapl:?")):
        try:
            counters[f"RAPL {package.name}"] = int((package / "energy_uj").read_text()) / 1e6
        except PermissionError:  # then the figure is an estimate, and says so
            continue
    return counters


def _read_gpus() -> Mapping[str, float]:
    """Joules that each GPU took since its driver was loaded."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:  # no NVIDIA driver
        return {}
    count, counters = ctypes.c_uint(), {}
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return {}
    for number in range(count.value):
        device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        found = library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device))
        if not found and not library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules)):
            counters[f"NVML {number}"] = millijoules.value / 1e3
    library.nvmlShutdown()
    return counters
