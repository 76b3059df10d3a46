"""Learning rates as a function of the step: resuming needs no scheduler's state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

_ONE_CYCLE_START, _ONE_CYCLE_END = 1 / 25, 1 / 250_000  # those of torch's OneCycleLR


def build_schedule(section: Mapping[str, Any], *, steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The recipe's `schedule` section as a function from the step (from 0) to a share of the peak rate.

    Args:
        steps: optimizer steps of the whole run.
    """
    warmup = round(section["warmup_fraction"] * steps)
    if section["name"] == "one-cycle":
        return lambda step: _one_cycle(step, warmup=warmup, steps=steps)
    after = _after_warmup(section, warmup=warmup, steps=steps, steps_per_epoch=steps_per_epoch)
    return lambda step: (step + 1) / warmup if step < warmup else after(step)


def _after_warmup(
    section: Mapping[str, Any], *, warmup: int, steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    name, final = section["name"], section["final_fraction"]
    left = max(1, steps - warmup)
    if name == "step":
        every, factor = section["step_epochs"] * steps_per_epoch, section["factor"]
        return lambda step: float(factor ** (step // every))
    if name == "cosine":
        return lambda step: final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / left))
    if name == "linear":
        return lambda step: final + (1 - final) * (1 - (step - warmup) / left)
    return lambda _: 1.0


def _one_cycle(step: int, *, warmup: int, steps: int) -> float:
    """Along a cosine up to 1, then down, reaching the end at the last step (Smith and Topin 2018)."""
    top = max(1, warmup - 1)
    if step <= top:
        return _along_cosine(_ONE_CYCLE_START, 1.0, step / top)
    return _along_cosine(1.0, _ONE_CYCLE_END, (step - top) / max(1, steps - 1 - top))


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
