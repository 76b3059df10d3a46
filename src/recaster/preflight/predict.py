"""From what a probe found to what the whole training takes: plain arithmetic, no torch.

memory  miniature's peak + growth to the plan's pass + mapped rows that it has not touched
time    steps + validations + what saves cost beside the steps + the last save + the result
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recaster.preflight.growth import fit_growth
from recaster.preflight.limits import ADDRESS_SPACE, DEVICE, RESIDENT

Found = Mapping[str, Any]
"""What one rank of a probe left: see `preflight.probe`."""
_SETTLING = 0.35
"""glibc's heap goes on growing for some dozens of steps, since blocks that are freed are split and not always
taken again: by this share of what was taken beyond the built model, over the root of the steps that were
seen. Chosen by the models of the library in benchmarks/results/preflight.json; its recipes check it."""
_KINDS = (RESIDENT, ADDRESS_SPACE, DEVICE)
_SAVING_COPIES = 2
"""Of a checkpoint, in memory while it is written, where no miniature has shown it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The peak of the rank that takes most, bytes."""

    resident: int
    """In RAM, with `mapped`."""
    mapped: int
    """Of the prepared rows: the kernel takes these back when memory is short, so no limit counts them."""
    address_space: int
    device: int
    """Of the GPU; 0 on a CPU."""

    def under(self, of: str) -> int:
        """What a limit `of` one kind of memory bounds."""
        return self.resident - self.mapped if of == RESIDENT else int(getattr(self, of))


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Wall time of a whole training, seconds; early stopping may end it sooner."""

    features: float
    """What a frozen encoder makes of all rows, computed once; 0 for methods that train it."""
    start: float
    """Imports, model, joining."""
    step: float
    """One optimizer step."""
    steps: int
    validation: float
    """One pass over the validation split."""
    validations: int
    save: float
    """What one save costs the steps beside it."""
    saves: int
    end: float
    """The last save and the result, which nothing goes on beside."""

    @property
    def training(self) -> float:
        """From the first step to the result."""
        return (
            self.steps * self.step
            + self.validations * self.validation
            + max(0, self.saves - 1) * self.save
            + self.end
        )

    @property
    def total(self) -> float:
        """From the prepared data to the result."""
        return self.features + self.start + self.training


def predict_memory(found: Sequence[Found], rows: int) -> Memory:
    """The peak of the rank that takes most, with passes of `rows` rows."""
    mapped = max(rank["miniature"]["mapped"]["size"] if "miniature" in rank else 0 for rank in found)
    kinds = {kind: math.ceil(max(predict_peak(rank, kind, rows) for rank in found)) for kind in _KINDS}
    return Memory(mapped=mapped, **kinds)


def predict_peak(found: Found, kind: str, rows: int) -> float:
    """The peak of one rank with passes of `rows` rows, bytes of one `kind` of memory."""
    reached = _grow(found, kind, rows, validation=_validation_pass(found, rows))
    if "miniature" not in found:
        saved = _SAVING_COPIES * float(found["state"]["checkpoint_bytes"])
        return reached + (0.0 if kind == DEVICE else saved)
    miniature = found["miniature"]
    extent, mapped = miniature["extent"], miniature["mapped"]
    size = int(extent["micro_batch_size"] or found["share"])
    tried = min(extent["validation_rows"], _validation_pass(found, size))
    more = reached - _grow(found, kind, size, validation=tried)
    untouched = mapped["size"] - mapped["resident"] if kind == RESIDENT else 0
    built, peak = float(found["built"][kind]), float(miniature["peak"][kind])
    settled = kind != RESIDENT or extent["steps"] >= found["steps"]
    settling = 0.0 if settled else _SETTLING / math.sqrt(extent["steps"]) * max(0.0, peak - built)
    return max(built, peak + more) + settling + untouched


def _grow(found: Found, kind: str, rows: int, *, validation: int) -> float:
    """What steps with passes of `rows` rows take, or validation by `validation` rows where that is more."""
    built = (0, float(found["built"][kind]))
    if not found["rungs"]:
        return built[1]
    steps = fit_growth([built, *((rung["rows"], rung["peak"][kind]) for rung in found["rungs"])])
    seen = fit_growth(
        [built, *((rung["validation_rows"], rung["validation_peak"][kind]) for rung in found["rungs"])]
    )
    return max(steps(rows), seen(validation))


def _validation_pass(found: Found, rows: int) -> int:
    """Rows that a rank validates together where a pass has `rows` rows."""
    whole = int(found["validation_pass"])
    return whole if rows == found["size"] else min(rows, whole)


def predict_duration(found: Found, train: Mapping[str, Any], *, features_seconds: float = 0.0) -> Duration:
    """How long the training takes.

    Args:
        found: by the first rank, with at least one rung or a miniature.
        train: the plan's section.
        features_seconds: of what is computed before.
    """
    steps, every = found["steps"], train["checkpoint_every_steps"]
    # The last step is validated too, where it ends within an epoch.
    epochs = math.ceil(steps / found["steps_per_epoch"])
    validations = math.ceil(epochs / train["validate_every_epochs"])
    seconds = _part_seconds(found, every)
    return Duration(
        features=features_seconds,
        start=found["start_seconds"],
        step=seconds["step"],
        steps=steps,
        validation=seconds["validation"],
        validations=validations,
        save=seconds["save"],
        saves=math.ceil(steps / every) + (validations if train["keep_best"] else 0),
        end=seconds["end"],
    )


def _part_seconds(found: Found, save_every: int) -> dict[str, float]:
    """Of a step, of a validation, of a save, of the end."""
    if "miniature" not in found:  # nothing is known of saving; forward is about a third of a pass
        points = ((rung["rows"], rung["seconds"]) for rung in found["rungs"])
        work = found["work"]
        step = fit_growth([(0, 0.0), *points])(found["size"]) * work["step"] / work["pass"]
        validation = step * found["validation_rows"] / found["share"] / 3
        return {"step": step, "validation": validation, "save": 0.0, "end": 0.0}
    miniature = found["miniature"]
    extent, stages = miniature["extent"], miniature["stages"]
    step = (stages["step_seconds"] or extent["step_guess"]) * miniature["step_share"]
    return {
        "step": step,
        "validation": stages["validation_seconds"] * miniature["validation_share"],
        "save": max(stages["saving_seconds"], stages["save_seconds"] - save_every * step),
        "end": stages["save_seconds"] + stages["result_seconds"],
    }
