"""The verbs in their order, in this process, without an orchestrator."""

from __future__ import annotations

from recaster.core.errors import RecipeError
from recaster.core.progress import Reporter
from recaster.core.steps import StepResult
from recaster.pipeline.base_verbs import fetch_cast_base
from recaster.pipeline.data_verbs import prepare, snapshot, validate, version_data
from recaster.pipeline.model_verbs import evaluate, export, train
from recaster.pipeline.open_cast import Cast
from recaster.pipeline.release_verbs import promote, register, version_artifact
from recaster.pipeline.summary import CastSummary, summarize

VERBS = ("snapshot", "validate", "prepare", "train", "evaluate", "register", "promote")
_SINGLE = ("snapshot", "validate", "prepare", "train", "export", "evaluate")


def run(cast: Cast, reporter: Reporter) -> CastSummary:
    """The whole cast."""
    raw = snapshot(cast, reporter)
    checked = validate(cast, raw)
    fetch_cast_base(cast, reporter)
    prepared = prepare(cast, raw, checked)
    version_data(cast, raw, checked, prepared, reporter)
    trained = train(cast, prepared, raw, reporter)
    evaluated = evaluate(cast, prepared, trained)
    version_artifact(cast, trained, reporter)
    registered = register(cast, raw, checked, prepared, trained, evaluated)
    promoted = promote(cast, registered, prepared, evaluated)
    return summarize(cast, [raw, checked, prepared, trained, evaluated, registered, promoted])


def run_to(cast: Cast, verb: str, reporter: Reporter, *, place: bool = False) -> StepResult:
    """Run the verbs up to `verb`, `evaluate` at most.

    Args:
        place: put the result of a stage of dvc.yaml to its place in the work tree, for DVC to take up.

    Raises:
        RecipeError: there is no such verb.
    """
    if verb not in _SINGLE:
        raise RecipeError(
            "There is no such step.",
            where="the command line",
            value=verb,
            repair=f"use one of: {', '.join(_SINGLE)}",
        )
    result = _run_single(cast, verb, reporter)
    if place:
        from recaster.versioning.data_versions import mirror_step

        mirror_step(cast.settings, cast.recipe.name, result)
    return result


def _run_single(cast: Cast, verb: str, reporter: Reporter) -> StepResult:
    raw = snapshot(cast, reporter)
    if verb == "snapshot":
        return raw
    checked = validate(cast, raw)
    if verb == "validate":
        return checked
    fetch_cast_base(cast, reporter)
    prepared = prepare(cast, raw, checked)
    if verb == "prepare":
        return prepared
    trained = train(cast, prepared, raw, reporter)
    if verb == "train":
        return trained
    return export(cast, trained) if verb == "export" else evaluate(cast, prepared, trained)
