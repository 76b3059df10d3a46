"""One rank of a probe: what does this training take, and how large a pass does the memory hold?

plan.json, allowance.json   →   probe-00000.json, written anew after each stage

It climbs from small passes towards the plan's, stops where memory or time would run out, and ends with a
training in miniature at the largest size that it may use.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from recaster.core.files import free_bytes, read_json, write_json
from recaster.distributed.mesh import Mesh
from recaster.preflight.growth import fit_growth, largest_power
from recaster.preflight.limits import ADDRESS_SPACE, DEVICE, RESIDENT
from recaster.preflight.miniature import EPOCHS, Extent, MiniatureRun, Rung, begin_peak, read_peak
from recaster.preflight.predict import predict_peak
from recaster.preflight.process_memory import mapped_files
from recaster.preflight.stages import read_stages
from recaster.training.memory_limit import is_out_of_memory
from recaster.training.precision import is_emulated
from recaster.training.rank import PLAN, join_training

ALLOWANCE = "allowance.json"
_RUNGS = (16, 4)
"""The plan's pass is this many times as large as each rung's."""
_STEPPING_SECONDS, _MOST_STEPS = 8.0, 64
"""Of the miniature's steps."""
_SAVING_BYTES_PER_SECOND = 2e8
"""A low guess, to tell whether there is time for two checkpoints."""
_FEW_STEPS, _FEWEST_STEPS, _PASSES, _RECORDS = 4, 2, 2, 8
"""Of the miniature: fewest steps where there is time, and where there is little; most passes in a step, most
records."""
_SHARDS = ".npy"
_FORWARD_SHARE = 0.4
"""Of a pass's time that its forward takes at most."""
_VALIDATING_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a probe may take."""

    ends_at: float
    """`time.time` when it should have ended."""
    resident_bytes: int | None
    """Of one rank; None: no bound."""
    address_space_bytes: int | None
    """Of one rank; None: no bound."""


def probe_rank(run_dir: Path, *, started: float) -> None:
    """Measure what one rank of `run_dir/plan.json` takes.

    Args:
        started: when this process began, in `time.time`'s seconds.

    Raises:
        RecipeError: the model or the device cannot do what the recipe asks.
        ResourceError: the disk does not hold the checkpoints.
    """
    plan: dict[str, Any] = read_json(run_dir / PLAN)
    plan["train"]["compile"] = False  # compiling alone may take longer than a probe
    allowance = Allowance(**read_json(run_dir / ALLOWANCE))
    with join_training(plan) as (workload, mesh):
        begin_peak(mesh)
        share = math.ceil(plan["train"]["batch_size"] / mesh.data_ranks)
        size = min(plan["train"]["micro_batch_size"] or share, share)
        run = MiniatureRun(run_dir, plan, workload, mesh, size)
        _Probe(run, allowance, size=size, share=share, started=started).run()


class _Probe:
    def __init__(
        self, run: MiniatureRun, allowance: Allowance, *, size: int, share: int, started: float
    ) -> None:
        self._run, self._mesh, self._allowance = run, run.mesh, allowance
        self._size, self._share = size, share
        self._rungs: list[Rung] = []
        self._rung = 1
        self._found: dict[str, Any] = {
            "device": run.mesh.device.type,
            "emulated": is_emulated(run.train_section["precision"], run.mesh.device),
            "device_bytes": _free_on_device(run.mesh),
            "start_seconds": time.time() - started,
            "built": asdict(read_peak(run.mesh)),
            "state": asdict(run.state_size),
            "steps": run.steps,
            "steps_per_epoch": run.sampler.steps_per_epoch,
            "validation_rows": len(run.validation),
            "validation_pass": min(
                run.validation_pass(run.train_section["micro_batch_size"]),
                math.ceil(len(run.validation) / run.mesh.data_ranks),
            ),
            "work": {"step": float(run.work.steps.mean()), "pass": int(run.work.largest.max())},
            "share": share,
            "size": size,
            "rungs": [],
        }
        self._tell()

    def run(self) -> None:
        """Climb, then train in miniature."""
        # A pipeline's schedule was made for passes of one size.
        size = self._size if self._run.strategy.passes else 0
        try:
            size = size or self._climb()
            extent = self._plan_extent(size) if size else None
            if extent:
                self._train_in_miniature(extent)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._found["ran_out"] = {"rows": size or self._rung, "reason": _first_line(error)}
            self._tell()
            # Not by returning: the way out would wait for ranks that wait for this one.
            os._exit(os.EX_TEMPFAIL)

    def _climb(self) -> int:
        """The size of the passes that the miniature may use; 0 for none."""
        for rows, validation_rows in self._list_rungs():
            if self._rungs and not self._has_room(rows, steps=3):
                break
            self._rung = rows
            self._rungs.append(self._run.climb(rows, validation_rows=validation_rows))
            self._found["rungs"] = [asdict(rung) for rung in self._rungs]
            self._tell()
        if self._has_room(self._size, steps=_FEWEST_STEPS):
            return self._size
        return largest_power(self._size, lambda rows: self._has_room(rows, steps=_FEWEST_STEPS))

    def _list_rungs(self) -> list[tuple[int, int]]:
        """Rows of a pass and rows validated together, ascending."""
        whole = self._found["validation_pass"]
        rungs = {max(1, self._size // times): max(1, whole // times) for times in _RUNGS}
        return sorted(rungs.items())

    def _has_room(self, rows: int, *, steps: int) -> bool:
        """Whether memory and time allow passes of `rows` rows; the same answer on all ranks."""
        bounds = {
            RESIDENT: self._allowance.resident_bytes,
            ADDRESS_SPACE: self._allowance.address_space_bytes,
            DEVICE: self._found["device_bytes"],
        }
        fits = time.time() + steps * self._pass_seconds(rows) < self._allowance.ends_at and all(
            limit is None or predict_peak(self._found, kind, rows) < limit for kind, limit in bounds.items()
        )
        return self._run.agree(float(fits)) == 1.0

    def _pass_seconds(self, rows: int) -> float:
        """Of a step of one pass; 0 where nothing was measured."""
        if not self._rungs:
            return 0.0
        return fit_growth([(0, 0.0), *((rung.rows, rung.seconds) for rung in self._rungs)])(rows)

    def _plan_extent(self, size: int) -> Extent | None:
        """How long a miniature there is time for; None when for none."""
        run, train = self._run, self._run.train_section
        one = run.agree(self._pass_seconds(size))
        whole = bool(run.strategy.passes) or math.ceil(self._share / size) <= _PASSES
        rows = self._share if whole else _PASSES * size
        # Passes are as heavy as the heaviest on the rungs, and mostly lighter.
        guess = one * self._found["work"]["step"] / self._found["work"]["pass"] * rows / self._share
        guess *= self._size / size
        saving = 2 * run.state_size.checkpoint_bytes / _SAVING_BYTES_PER_SECOND
        left = run.agree(self._allowance.ends_at - time.time() - saving)
        room = free_bytes(run.run_dir) > 3 * run.state_size.checkpoint_bytes
        if left < _FEWEST_STEPS * guess or run.agree(float(room)) < 1:
            return None
        steps = max(_FEW_STEPS, int(_STEPPING_SECONDS / guess)) if guess else _FEW_STEPS
        steps, record_every = _round_steps(min(steps, int(left / guess) if guess else steps, _MOST_STEPS))
        asked = train["micro_batch_size"] is None and size == self._share
        return Extent(
            steps=steps,
            record_every=record_every,
            batch_size=train["batch_size"] if whole else rows * self._mesh.data_ranks,
            micro_batch_size=None if asked else size,
            step_guess=guess,
            validation_rows=self._choose_validation(None if asked else size, one / size),
        )

    def _choose_validation(self, size: int | None, row_seconds: float) -> int:
        """Rows of one pass of validation, as far as there is time for them."""
        rows = self._run.validation_pass(size)
        if row_seconds:
            rows = min(rows, max(1, int(_VALIDATING_SECONDS / (_FORWARD_SHARE * row_seconds))))
        return min(len(self._run.validation), rows * self._mesh.data_ranks)

    def _train_in_miniature(self, extent: Extent) -> None:
        run, whole, batch_size = self._run, self._run.work, self._run.train_section["batch_size"]
        validation = run.measure_validation(extent.micro_batch_size)
        begin_peak(self._mesh)
        with run.real_feed():
            run.shorten(extent)
            began, computing = time.time(), time.process_time()
            run.train()
            ended, mapped = time.time(), mapped_files(_SHARDS)
        share = (time.process_time() - computing) / ((ended - began) * torch.get_num_threads())
        timed = run.measure_work().steps[extent.record_every : extent.steps // EPOCHS]
        found = {
            "extent": asdict(extent),
            "cpu_share": share,
            "step_share": float(whole.steps.mean() / timed.mean())
            if len(timed)
            else batch_size / extent.batch_size,
            "validation_share": validation / run.measure_validation(extent.micro_batch_size),
            "peak": asdict(read_peak(self._mesh)),
            "mapped": asdict(mapped),
        }
        if self._mesh.rank == 0:
            found["stages"] = asdict(read_stages(run.run_dir, extent, ended=ended))
        self._found["miniature"] = found
        self._tell()

    def _tell(self) -> None:
        write_json(self._run.run_dir / result_name(self._mesh.rank), self._found)


def result_name(rank: int) -> str:
    """The file in which `rank` leaves what it found."""
    return f"probe-{rank:05d}.json"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _round_steps(steps: int) -> tuple[int, int]:
    """A number of steps whose half is a whole number of records, and the steps between two records."""
    every = max(1, steps // _RECORDS)
    records = max(2, min(_RECORDS, steps // every) // 2 * 2)
    return every * records, every


def _free_on_device(mesh: Mesh) -> int | None:
    """Bytes of the GPU that this rank can have, those that it has included; None on a CPU."""
    if mesh.device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(mesh.device)
    return int(free) + torch.cuda.memory_reserved(mesh.device)
