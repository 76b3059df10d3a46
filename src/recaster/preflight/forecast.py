"""What the whole training takes against what this host has: the forecast, and why it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recaster.core.errors import ResourceError
from recaster.preflight.growth import largest_power
from recaster.preflight.limits import ADDRESS_SPACE, DEVICE, RESIDENT, MemoryLimit, tightest
from recaster.preflight.power import Power
from recaster.preflight.predict import Duration, Found, Memory, predict_duration, predict_memory

_FILLED = 0.9
"""Share of a limit that a smaller pass, which was not tried, may take, since predictions are off by some
percent."""
_MIB, _GIB = 2**20, 2**30
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What a cast leaves below HOME, bytes."""

    checkpoint: int
    checkpoints: int
    """Kept ones and the one in writing."""
    result: int
    """Weights that training leaves."""
    weights: int
    """Of the whole model."""
    copies: int
    """Of the whole model: the artifact, its versions."""
    free: int

    @property
    def needed(self) -> int:
        """All together."""
        return self.checkpoints * self.checkpoint + self.result + self.copies * self.weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a training takes; parts are None where the probe did not come so far."""

    found: Found
    """By the first rank."""
    ranks: int
    """On this host."""
    memory: Memory | None
    limits: Sequence[MemoryLimit]
    """The tightest of each kind."""
    fitting: int
    """Rows of the largest pass that fits: the plan's, or a power of two; 0 for none."""
    duration: Duration | None
    disk: Disk
    power: Power | None
    ran_out: str
    """How memory ran out in the probe; empty when it did not."""

    def refusals(self) -> list[ResourceError]:
        """Why this training must not be begun here."""
        return [error for error in (self._refuse_memory(), self._refuse_disk()) if error]

    def _refuse_memory(self) -> ResourceError | None:
        size = self.found["size"]
        if self.fitting == size:
            return None
        crossed = [
            limit for limit in self.limits if self.memory and self.memory.under(limit.of) > limit.bytes
        ]
        told = "; ".join(
            f"{self.memory.under(limit.of) / _GIB:.2f} GiB are needed, {limit.source} is "
            f"{limit.bytes / _GIB:.2f} GiB"
            for limit in crossed
            if self.memory
        )
        where = f" on each of {self.ranks} ranks" if self.ranks > 1 else ""
        smaller = (
            f"--set train.micro_batch_size={self.fitting} fits (the same global batch in more passes)"
            if self.fitting
            else "use a smaller model, bf16, activation_checkpointing, or strategy fsdp over more ranks"
        )
        return ResourceError(
            "Too little memory for this training; no step was taken.",
            where="train.micro_batch_size",
            value=f"passes of {size} rows{where}: {told or self.ran_out}",
            repair=smaller,
        )

    def _refuse_disk(self) -> ResourceError | None:
        disk = self.disk
        if disk.needed <= disk.free:
            return None
        fits = (disk.free - disk.result - disk.copies * disk.weights) // disk.checkpoint - 1
        fewer = f"set train.keep_checkpoints to {fits}, " if fits >= 2 else ""
        return ResourceError(
            "Too little disk for this cast; no step was taken.",
            where="train.keep_checkpoints",
            value=f"{disk.checkpoints} checkpoints of {_mib(disk.checkpoint)}, trained weights of "
            f"{_mib(disk.result)} and {disk.copies} copies of the model of {_mib(disk.weights)} need "
            f"{_mib(disk.needed)}; {_mib(disk.free)} free",
            repair=f"{fewer}free some space, or set RECASTER_HOME to a folder on a larger disk",
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON; bytes, seconds, watt hours."""
        found, memory, duration, power = self.found, self.memory, self.duration, self.power
        hours = duration.total / _SECONDS_PER_HOUR if duration else None
        return {
            "device": found["device"],
            "emulated_precision": found["emulated"],
            "ranks": self.ranks,
            "parameters": found["state"]["parameters"],
            "trained_parameters": found["state"]["trained"],
            "cpu_share": found["miniature"]["cpu_share"] if "miniature" in found else None,
            "micro_batch_size": {"asked": found["size"], "fits": self.fitting},
            "memory": asdict(memory) if memory else None,
            "memory_limits": [asdict(limit) for limit in self.limits],
            "disk": {**asdict(self.disk), "needed": self.disk.needed},
            "time": {**asdict(duration), "training": duration.training, "total": duration.total}
            if duration
            else None,
            "energy": {"watt_hours": power.watts * hours, **asdict(power)} if power and hours else None,
            "refused": [str(error) for error in self.refusals()],
        }


def make_forecast(
    found: Sequence[Found],
    plan: Mapping[str, Any],
    *,
    limits: Sequence[MemoryLimit],
    free_disk: int,
    copies: int,
    power: Power | None,
    features_seconds: float = 0.0,
) -> Forecast:
    """The forecast from what each rank of a probe found.

    Args:
        limits: of one rank.
        copies: of the model, that the cast makes.
        features_seconds: of what is computed before the training.
    """
    first = found[0]
    measured = all(rank["rungs"] or "miniature" in rank for rank in found)
    ran_out = next((rank["ran_out"]["reason"] for rank in found if "ran_out" in rank), "")
    bounds = _tightest_of_each(limits, found)
    state, keep = first["state"], plan["train"]["keep_checkpoints"]
    stages = first["miniature"]["stages"] if "miniature" in first else None
    return Forecast(
        found=first,
        ranks=plan["distributed"]["ranks"],
        memory=predict_memory(found, first["size"]) if measured else None,
        limits=bounds,
        fitting=_find_fitting(found, bounds) if measured or ran_out else first["size"],
        duration=predict_duration(first, plan["train"], features_seconds=features_seconds)
        if measured
        else None,
        disk=Disk(
            checkpoint=stages["checkpoint_bytes"] if stages else state["checkpoint_bytes"],
            checkpoints=keep + 1,
            result=stages["weights_bytes"] if stages else state["result_bytes"],
            weights=state["weights_bytes"],
            copies=copies,
            free=free_disk,
        ),
        power=power,
        ran_out=ran_out,
    )


def _tightest_of_each(limits: Sequence[MemoryLimit], found: Sequence[Found]) -> list[MemoryLimit]:
    devices = [rank["device_bytes"] for rank in found if rank["device_bytes"] is not None]
    known = [*limits]
    if devices:
        known.append(MemoryLimit(of=DEVICE, bytes=min(devices), source="the GPU's free memory"))
    return [limit for of in (RESIDENT, ADDRESS_SPACE, DEVICE) if (limit := tightest(known, of))]


def _find_fitting(found: Sequence[Found], limits: Sequence[MemoryLimit]) -> int:
    def fits(rows: int, share: float) -> bool:
        memory = predict_memory(found, rows)
        return all(memory.under(limit.of) <= share * limit.bytes for limit in limits)

    size = int(found[0]["size"])
    failed = [int(rank["ran_out"]["rows"]) for rank in found if "ran_out" in rank]
    if failed and "miniature" in found[0]:  # of smaller passes, which did not run out
        return int(found[0]["miniature"]["extent"]["micro_batch_size"])
    if not failed and fits(size, 1.0):
        return size
    return largest_power(min([size, *failed]), lambda rows: fits(rows, _FILLED))


def _mib(value: float) -> str:
    return f"{value / _MIB:.1f} MiB"
