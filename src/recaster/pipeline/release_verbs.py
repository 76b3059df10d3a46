"""The release verbs: version the artifact, register, promote."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.files import read_json, write_json
from recaster.core.progress import Reporter
from recaster.core.steps import StepResult, find_step, fingerprint, run_step
from recaster.pipeline.card_facts import collect_facts
from recaster.pipeline.data_verbs import commit_version, unversioned_because
from recaster.pipeline.inputs import code_of, register_inputs
from recaster.pipeline.model_verbs import compare_judged, evaluate_artifact, export
from recaster.pipeline.open_cast import Cast

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from recaster.registry.gate import Verdict

_MODEL_SECTIONS = ("data", "contract", "split", "model", "customize", "train", "distributed")


def version_artifact(cast: Cast, trained: StepResult, reporter: Reporter) -> StepResult | None:
    """Commit the exported artifact with DVC, as the stage `export` of dvc.yaml.

    Returns:
        None when `dvc.yaml` is not about this cast (see `unversioned_because`).
    """
    if reason := unversioned_because(cast, _MODEL_SECTIONS):
        reporter.say(f"dvc.lock keeps its artifact: {reason}")
        return None
    return commit_version(cast, [export(cast, trained)])


def register(  # noqa: PLR0917 - one reference from each step
    cast: Cast,
    snapshot: StepResult,
    validation: StepResult,
    prepared: StepResult,
    trained: StepResult,
    evaluation: StepResult,
) -> StepResult:
    """Log results and create one model version, an ordinary MLflow model from code.

    Raises:
        ServiceError: MLflow does not answer; nothing is lost, and nothing is there twice after a retry.
    """
    from recaster.exporting.card import write_card
    from recaster.registry.versions import register_version
    from recaster.tracking.runs import JournalForwarder, log_results, open_tracking

    recipe, run_id, settings = cast.recipe, trained.facts["run_id"], cast.settings
    inputs = register_inputs(cast, trained, evaluation)

    def build(folder: Path) -> dict[str, Any]:
        client, artifact = open_tracking(settings), folder / "model"
        JournalForwarder(settings, run_id, trained.path / "journal.jsonl").finish("FINISHED")
        shutil.copytree(export(cast, trained).path, artifact, ignore=shutil.ignore_patterns("manifest.json"))
        write_card(artifact, recipe, collect_facts(cast, snapshot, trained, evaluation))
        log_results(
            client,
            run_id,
            uri=settings.tracking_uri,
            metrics={name: entry["value"] for name, entry in evaluation.facts["metrics"].items()},
            files=[
                *sorted(evaluation.path.glob("*.png")),
                *sorted(evaluation.path.glob("*.html")),
                evaluation.path / "metrics.json",
                validation.path / "report.md",
            ],
            description=_describe(evaluation),
        )
        version = register_version(
            client,
            uri=settings.tracking_uri,
            name=recipe.name,
            run_id=run_id,
            artifact=artifact,
            served_by=cast.workload.served_by,
            fingerprint=fingerprint(inputs),
            description=_describe(evaluation),
            tags={"recaster.data_version": snapshot.content, "recaster.prepared": prepared.content},
        )
        return {"name": recipe.name, "version": version, "run_id": run_id}

    return run_step(settings.steps, "register", inputs, build)


def _describe(evaluation: StepResult) -> str:
    metrics = evaluation.facts["metrics"].items()
    untuned = evaluation.facts.get("untuned", {})
    text = f"On {evaluation.facts['rows']} held-out records: " + ", ".join(
        f"{name} {entry['value']:.4f} ({entry['low']:.4f} to {entry['high']:.4f})" for name, entry in metrics
    )
    before = ", ".join(f"{name} {entry['value']:.4f}" for name, entry in untuned.items())
    return f"{text}. Its base, untuned: {before}" if untuned else text


def promote(cast: Cast, registered: StepResult, prepared: StepResult, evaluation: StepResult) -> StepResult:
    """Hold the new version against the bar and the champion; move the alias only on yes.

    A version that is champion already stays it: either this verb was cut off after it moved the
    alias, or people decided.

    Raises:
        ServiceError: MLflow does not answer.
    """
    from recaster.registry import versions
    from recaster.tracking.runs import open_tracking, service_errors

    client, recipe, version = open_tracking(cast.settings), cast.recipe, registered.facts["version"]
    with service_errors(cast.settings.tracking_uri):
        champion = versions.find_champion(client, recipe.name)
        taken_out = versions.rolled_back_at(client, recipe.name, version)

    facts = {"name": recipe.name, "version": version}

    def build(folder: Path) -> dict[str, Any]:
        if champion == version:
            reason = versions.promoted_because(client, recipe.name, version)
            return {**facts, "accepted": True, "reasons": [reason]}
        if taken_out:
            repair = f"`recaster promote {recipe.name} --version {version}` puts it back"
            reason = f"version {version} was taken out of production by hand at {taken_out}; {repair}"
            return {**facts, "accepted": False, "reasons": [reason]}
        verdict = _judge(cast, client, champion, prepared, evaluation, folder)
        if verdict.accepted:
            reason = "; ".join(verdict.reasons)
            versions.promote_version(client, recipe.name, version, over=champion or "", reason=reason)
        else:
            reason = "; ".join(verdict.reasons)
            versions.mark_challenger(client, recipe.name, version, reason=reason)
        return {**facts, "accepted": verdict.accepted, "reasons": verdict.reasons}

    if champion == version and (done := _find_promotion(cast, version)):
        return done
    inputs = {
        **facts,
        "registered": registered.ref,
        "champion": champion,
        "taken_out": taken_out,
        "evaluation": evaluation.ref,
        "gate": recipe.gate.model_dump(),
        "code": code_of("promote"),
    }
    with service_errors(cast.settings.tracking_uri):
        return run_step(cast.settings.steps, "promote", inputs, build)


def _find_promotion(cast: Cast, version: str) -> StepResult | None:
    """The finished step that made `version` champion."""
    for path in sorted((cast.settings.steps / "promote").glob("*/manifest.json")):
        manifest = read_json(path)
        facts = manifest["facts"]
        if (facts["name"], facts["version"]) == (cast.recipe.name, version) and facts["accepted"]:
            return find_step(cast.settings.steps, "promote", manifest["inputs"])
    return None


def _judge(  # noqa: PLR0917 - one reference from each step
    cast: Cast,
    client: MlflowClient,
    champion: str | None,
    prepared: StepResult,
    evaluation: StepResult,
    folder: Path,
) -> Verdict:
    """The gate's verdict; the champion is measured anew, on the same held-out records."""
    import numpy as np

    from recaster.evaluation.metrics import paired_difference
    from recaster.registry.gate import decide
    from recaster.registry.versions import fetch_artifact

    gate, other, difference = cast.recipe.gate, None, None
    sides: list[str] = []
    if champion:
        artifact = fetch_artifact(client, cast.recipe.name, champion, folder / "champion")
        former = evaluate_artifact(cast, prepared, artifact, None)
        other = {name: entry["value"] for name, entry in former.facts["metrics"].items()}
        difference = paired_difference(
            np.load(evaluation.path / "predictions.npy"),
            np.load(former.path / "predictions.npy"),
            np.load(evaluation.path / "targets.npy"),
            cast.workload.metrics(cast.recipe.evaluate)[gate.champion.metric],
            cast.recipe.evaluate,
        )
        replies = read_json(evaluation.path / "metrics.json").get("replies", [])
        if found := compare_judged(cast, replies, former):
            write_json(folder / "side_by_side.json", found)
            sides = [_tell_sides(found, champion)]
    values = {name: entry["value"] for name, entry in evaluation.facts["metrics"].items()}
    verdict = decide(gate, values, other, difference, champion or "")
    return replace(verdict, reasons=[*verdict.reasons, *sides])


def _tell_sides(found: dict[str, float], champion: str) -> str:
    return (
        f"the judge prefers its replies to champion version {champion}'s in {found['win_rate']:.2f} of "
        f"{found['conversations']} conversations ({found['low']:.2f} to {found['high']:.2f}; ties are half, "
        f"{found['ties']:.2f}), which decides nothing"
    )
