"""The data verbs: snapshot, validate, prepare; and their DVC version."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from recaster.core.errors import ContractError, RecipeError
from recaster.core.files import write_json
from recaster.core.progress import Reporter
from recaster.core.steps import MANIFEST, StepResult, find_step, run_step
from recaster.pipeline.base_verbs import find_base, find_encoder
from recaster.pipeline.inputs import prepare_inputs, snapshot_inputs, validate_inputs
from recaster.pipeline.open_cast import Cast
from recaster.recipe.load import load_recipe

_VERSIONED_SECTIONS = ("data", "contract", "split")


def snapshot(cast: Cast, reporter: Reporter) -> StepResult:
    """Pack the raw data set, good and bad records alike.

    Raises:
        DataError: the source is missing or of no known kind.
    """
    from recaster.data.packed import write_packed
    from recaster.data.sources import read_records

    def build(folder: Path) -> dict[str, Any]:
        records = read_records(cast.recipe.data, cast.settings)
        return {"rows": write_packed(records, folder)}

    result = run_step(cast.settings.steps, "snapshot", snapshot_inputs(cast), build)
    reporter.say(f"snapshot: {result.facts['rows']} records, version {result.content[:12]}")
    return result


def validate(cast: Cast, snapshot: StepResult) -> StepResult:
    """Check the data contract; bad rows go to quarantine.

    Raises:
        ContractError: the data set is refused; the report is kept under HOME/refused.
    """
    from recaster.data.contract import check_contract

    _check_fit(cast)
    recipe, kept = cast.recipe, cast.settings.home / "refused" / cast.recipe.name

    def build(folder: Path) -> dict[str, Any]:
        try:
            return check_contract(
                cast.workload.facts(snapshot.path),
                cast.workload.rules(recipe),
                data=recipe.data,
                contract=recipe.contract,
                folder=folder,
            )
        except ContractError as error:
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            error.repair = error.repair.replace(str(folder), str(kept))
            raise

    return run_step(cast.settings.steps, "validate", validate_inputs(cast, snapshot), build)


def _check_fit(cast: Cast) -> None:
    recipe, workload = cast.recipe, cast.workload
    if recipe.data.kind != workload.kind:
        raise RecipeError(
            f"Workload {recipe.workload} takes records of another kind.",
            where=f"{cast.path}, key data",
            value=f"section data.{recipe.data.kind}",
            repair=f"describe them in a section data.{workload.kind}",
        )
    known = [f"scratch:{name}" for name in workload.architectures]
    if recipe.model.from_scratch and recipe.model.base not in known:
        raise RecipeError(
            f"Workload {recipe.workload} has no such architecture.",
            where=f"{cast.path}, key model.base",
            value=recipe.model.base,
            repair=f"use {' or '.join(known)}, or an open model",
        )


def prepare(cast: Cast, snapshot: StepResult, validation: StepResult) -> StepResult:
    """Split without leakage and write shards; the base model must have been fetched."""
    import numpy as np

    base, encoder = find_base(cast), find_encoder(cast)

    def build(folder: Path) -> dict[str, Any]:
        accepted = np.load(validation.path / "accepted.npy")
        place = base.path if base else None
        if encoder:  # what the evaluation compares by goes along with the data that it compares with
            shutil.copytree(encoder.path, folder / "encoder", ignore=shutil.ignore_patterns(MANIFEST))
        return cast.workload.prepare(cast.recipe, snapshot.path, accepted, place, folder)

    return run_step(cast.settings.steps, "prepare", prepare_inputs(cast, snapshot, validation), build)


def version_data(
    cast: Cast, snapshot: StepResult, validation: StepResult, prepared: StepResult, reporter: Reporter
) -> StepResult | None:
    """Mirror the data steps into the work tree and commit them with DVC, once for the same content.

    Returns:
        None when `dvc.yaml` is not about this cast (see `unversioned_because`). The steps keep its
        content all the same.
    """
    if reason := unversioned_because(cast, _VERSIONED_SECTIONS):
        reporter.say(f"dvc.lock is left as it is: {reason}")
        return None
    return commit_version(cast, [snapshot, validation, prepared])


def commit_version(cast: Cast, results: list[StepResult]) -> StepResult:
    """Mirror finished steps into the work tree and commit their stages, unless `dvc.lock` says so already."""
    from recaster.versioning.data_versions import commit_stages, lock_agrees, mirror_step

    settings, name = cast.settings, cast.recipe.name

    def build(folder: Path) -> dict[str, Any]:
        for result in results:
            mirror_step(settings, name, result)
        versions = commit_stages(settings, name, [result.step for result in results])
        write_json(folder / "versions.json", versions)
        return {"versions": versions}

    inputs = _version_inputs(cast, results)
    found = run_step(settings.steps, "version", inputs, build)
    # Going back to former data finds the step, while dvc.lock still names the data in between.
    if found.reused and not lock_agrees(settings, name, found.facts["versions"]):
        shutil.rmtree(found.path)
        return run_step(settings.steps, "version", inputs, build)
    return found


def _version_inputs(cast: Cast, results: list[StepResult]) -> dict[str, Any]:
    return {"project": str(cast.settings.project), "content": [result.ref for result in results]}


def data_is_versioned(cast: Cast, results: list[StepResult]) -> bool:
    """Whether `dvc.lock` names these data steps' content, or is not meant to."""
    from recaster.versioning.data_versions import lock_agrees

    if unversioned_because(cast, _VERSIONED_SECTIONS):
        return True
    found = find_step(cast.settings.steps, "version", _version_inputs(cast, results))
    return found is not None and lock_agrees(cast.settings, cast.recipe.name, found.facts["versions"])


def unversioned_because(cast: Cast, sections: tuple[str, ...]) -> str:
    """Why `dvc.lock` must not record what this cast makes of the recipe's `sections`; empty when it may.

    The stages read `recipes/NAME.yaml`. What another file or `--set` asked for would stand in
    `dvc.lock` under parameters that did not make it.
    """
    versioned = cast.settings.project / "recipes" / f"{cast.recipe.name}.yaml"
    if cast.path.resolve() != versioned.resolve():
        return (
            f"DVC versions recipes/{cast.recipe.name}.yaml alone, and this recipe is {cast.path} "
            f"(`recaster new NAME --from {cast.path}` makes a copy that is versioned)"
        )
    if changed := _changed_sections(cast, sections):
        return f"--set changes {', '.join(changed)} of {cast.path.name}"
    return ""


def _changed_sections(cast: Cast, sections: tuple[str, ...]) -> list[str]:
    """Those `sections` in which overrides make the recipe differ from its file."""
    if not cast.overrides:
        return []
    try:
        written = load_recipe(cast.path)
    except RecipeError:  # whole only with its overrides
        return list(sections)
    return [name for name in sections if getattr(written, name) != getattr(cast.recipe, name)]
