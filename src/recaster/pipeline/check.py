"""The check before any compute is spent: the recipe, its data, and what its training will need here."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict
from typing import Any

from recaster.core.files import free_bytes, read_json
from recaster.core.progress import Reporter
from recaster.core.steps import StepResult
from recaster.distributed.elastic import fit_section
from recaster.pipeline.base_verbs import fetch_cast_base, find_base
from recaster.pipeline.data_verbs import prepare, snapshot, validate
from recaster.pipeline.inputs import training_plan
from recaster.pipeline.open_cast import Cast
from recaster.pipeline.stand_in import find_features
from recaster.preflight.forecast import Forecast, make_forecast
from recaster.preflight.launch import probe
from recaster.preflight.limits import read_memory_limits
from recaster.preflight.power import PowerMeter, find_power

_WITHIN_SECONDS = 30.0
"""Of the whole check, once the data steps are finished."""
_ENDING_SECONDS = 5.0
_LEAST_SECONDS = 10.0
"""For the probe."""
_COPIES = 3
"""Of the model that a cast makes below HOME: in the steps export and register, and in DVC's cache."""


def check(cast: Cast, reporter: Reporter) -> dict[str, Any]:
    """Check the recipe's data and foresee its training; nothing of the training is kept.

    The data steps are those of the cast, which later finds them finished.

    Returns:
        The contract's facts, the path of its `report`, what the splits have in common (`leakage`), which
        share of texts is cut (`truncated`, where there are texts), whether the base's head is for these
        labels (`base_labels`, where it has one), and the `forecast`.

    Raises:
        DataError, ContractError: the data is refused.
        BaseModelError, ServiceError: the base model is damaged, or cannot be fetched.
        RecipeError: a licence is not accepted, or the model cannot do what the recipe asks.
        ResourceError, TrainingError: see `foresee`.
    """
    from recaster.data.leakage import find_leakage

    raw = snapshot(cast, reporter)
    checked = validate(cast, raw)
    fetch_cast_base(cast, reporter)
    prepared = prepare(cast, raw, checked)
    started = time.monotonic()
    leakage = find_leakage(prepared.path, distance=cast.recipe.split.near_duplicate_distance)
    facts = read_json(prepared.path / "splits.json")
    reporter.say("training in miniature, to foresee memory and time")
    seconds = max(_LEAST_SECONDS, _WITHIN_SECONDS - _ENDING_SECONDS - (time.monotonic() - started))
    forecast = foresee(cast, prepared, seconds=seconds)
    return {
        "recipe": cast.recipe.name,
        **checked.facts,
        "report": str(checked.path / "report.md"),
        "splits": facts["rows"],
        **_compare_labels(cast),
        "leakage": [asdict(found) for found in leakage],
        **({"truncated": facts["truncated"]} if "truncated" in facts else {}),
        "forecast": forecast.to_json(),
    }


def foresee(cast: Cast, prepared: StepResult, *, seconds: float) -> Forecast:
    """What the training of `prepared` takes on this host, from a probe of at most `seconds`.

    Raises:
        RecipeError: the model or the device cannot do what the recipe asks.
        ResourceError: memory does not hold the model.
        TrainingError: the probe ended without a reason, or was not ready in time.
    """
    settings, started = cast.settings, time.monotonic()
    folder = settings.home / "preflight" / f"{cast.recipe.name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # of a check that was killed
    try:
        features, features_seconds = find_features(cast, prepared, folder / "features")
        plan = training_plan(cast, prepared)
        section = fit_section(
            plan["distributed"], plan["distributed"]["ranks"] // plan["distributed"]["nodes"]
        )
        plan |= {"distributed": section, "features": str(features) if features else None}
        limits, meter = read_memory_limits(section["ranks"]), PowerMeter()
        left = seconds - (time.monotonic() - started)
        found = probe(folder / "run", plan, limits=limits, seconds=left)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    device, cores = found[0]["device"], section["ranks"] * section["threads_per_rank"]
    return make_forecast(
        found,
        plan,
        limits=limits,
        free_disk=free_bytes(settings.home),
        copies=_COPIES + int(settings.local_tracking),
        power=find_power(settings.watts, meter.mean(device=device), cores=cores, device=device),
        features_seconds=features_seconds,
    )


def _compare_labels(cast: Cast) -> dict[str, Any]:
    """Whether the base's head is for the recipe's labels; nothing for a base without a head."""
    base, wanted = find_base(cast), cast.recipe.data.labels
    if base is None or not wanted:
        return {}
    config = read_json(base.path / "config.json")
    own = [*config.get("id2label", {}).values()]
    classes = len(own) or config.get("arguments", {}).get("classes")
    return {"base_labels": {"labels": own, "classes": classes, "fit": own == wanted}} if classes else {}
