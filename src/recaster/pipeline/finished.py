"""Telling in a fraction of a second that a cast has nothing left to do."""

from __future__ import annotations

from typing import Any

from recaster.core.steps import StepResult, find_step, fingerprint
from recaster.pipeline.base_verbs import find_base, find_critic, find_encoder, find_judge, find_teacher
from recaster.pipeline.data_verbs import data_is_versioned
from recaster.pipeline.inputs import (
    code_of_all,
    prepare_inputs,
    snapshot_inputs,
    train_inputs,
    validate_inputs,
)
from recaster.pipeline.open_cast import Cast
from recaster.pipeline.summary import CastSummary, StepSummary, history
from recaster.pipeline.vector_verbs import vectors_are_here
from recaster.recipe.load import hash_recipe
from recaster.registry.alias import UNKNOWN, read_champion


def find_finished(cast: Cast) -> CastSummary | None:
    """The summary of a cast in which nothing is left to do, or None; imports no torch, MLflow or Prefect.

    The last cast of this recipe is the answer when its data, its code, its DVC version and the
    champion in the registry are still what they were.
    """
    found = find_data_steps(cast)
    recorded = [
        former
        for former in history(cast.settings, cast.recipe.name)
        if former["recipe"] == hash_recipe(cast.recipe)
    ]
    if not found or not recorded or not _is_current(cast, recorded[-1], found):
        return None
    last = recorded[-1]
    steps = [StepSummary(**{**step, "reused": True}) for step in last["steps"]]
    known = {
        field: last[field]
        for field in ("name", "data_version", "metrics", "accepted", "reasons", "model_version", "champion")
    }
    return CastSummary(**known, steps=steps)


def find_data_steps(cast: Cast) -> list[StepResult]:
    """The three finished data steps for the source's present content; empty when one is missing."""
    steps = cast.settings.steps
    if (raw := find_step(steps, "snapshot", snapshot_inputs(cast))) is None:
        return []
    if (checked := find_step(steps, "validate", validate_inputs(cast, raw))) is None:
        return []
    if not cast.recipe.model.from_scratch and find_base(cast, needed=False) is None:
        return []
    if cast.recipe.customize.distil and find_teacher(cast, needed=False) is None:
        return []
    section = cast.recipe.evaluate
    encoder_is_here = not section.encoder or find_encoder(cast, needed=False) is not None
    critic_is_here = not cast.recipe.train.adversary.encoder or find_critic(cast, needed=False) is not None
    judge_is_here = not section.judge or find_judge(cast, needed=False) is not None
    if not (encoder_is_here and critic_is_here and judge_is_here and vectors_are_here(cast)):
        return []
    prepared = find_step(steps, "prepare", prepare_inputs(cast, raw, checked))
    return [raw, checked, prepared] if prepared else []


def _is_current(cast: Cast, last: dict[str, Any], found: list[StepResult]) -> bool:
    refs = {step["step"]: step["ref"] for step in last["steps"]}
    wanted = {result.step: result.ref for result in found}
    wanted["train"] = f"train/{fingerprint(train_inputs(cast, found[-1]))}"
    if last["code"] != code_of_all() or any(refs[step] != ref for step, ref in wanted.items()):
        return False
    if not data_is_versioned(cast, found):
        return False
    champion = read_champion(cast.settings, cast.recipe.name)
    return champion is not UNKNOWN and (champion or "") == last["champion"]
