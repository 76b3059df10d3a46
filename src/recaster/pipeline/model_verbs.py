"""The model verbs: train, export, evaluate."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.errors import ServiceError, StoppedError
from recaster.core.files import read_json, write_json
from recaster.core.hashing import hash_file
from recaster.core.progress import Reporter
from recaster.core.steps import StepResult, find_step, fingerprint, run_step
from recaster.pipeline.base_verbs import find_base, find_judge
from recaster.pipeline.inputs import (
    evaluate_inputs,
    export_inputs,
    features_inputs,
    flatten,
    train_inputs,
    training_plan,
)
from recaster.pipeline.open_cast import Cast
from recaster.recipe.load import hash_recipe

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from recaster.tracking.runs import JournalForwarder


def train(
    cast: Cast,
    prepared: StepResult,
    snapshot: StepResult,
    reporter: Reporter,
    *,
    watch: Callable[[], None] | None = None,
    tags: Mapping[str, str] | None = None,
) -> StepResult:
    """Train over the recipe's ranks, going on from the newest checkpoint.

    MLflow must answer at the start, for the run to exist; what it misses later is replayed from
    the journal at the end or, if it is still away, by `register`.

    Args:
        watch: called several times a second while ranks run; what it raises stops them, and is raised.
        tags: of the MLflow run, beside the usual ones.

    Raises:
        DivergedError, CheckpointError, TrainingError: see training/supervise.py.
        ServiceError: MLflow does not answer at the start.
    """
    from recaster.tracking.runs import JournalForwarder, open_tracking
    from recaster.training import supervise

    inputs = train_inputs(cast, prepared)
    if found := find_step(cast.settings.steps, "train", inputs):
        return found
    client = open_tracking(cast.settings)
    run_id = _open_run(cast, client, snapshot, fingerprint(inputs), tags or {})

    def build(folder: Path) -> dict[str, Any]:
        forwarder = JournalForwarder(cast.settings, run_id, folder / "journal.jsonl", say=reporter.say)
        try:
            plan = training_plan(cast, prepared, compute_features(cast, prepared, reporter))
            result = supervise.train(folder, plan, reporter=reporter, forwarder=forwarder, watch=watch)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | StoppedError)
            _close_run(forwarder, reporter, "KILLED" if stopped else "FAILED")
            raise
        return {**result, "run_id": run_id}

    result = run_step(cast.settings.steps, "train", inputs, build, resumable=True, on_wait=reporter.say)
    forwarder = JournalForwarder(cast.settings, run_id, result.path / "journal.jsonl", say=reporter.say)
    _close_run(forwarder, reporter, "FINISHED")
    return result


def _open_run(
    cast: Cast, client: MlflowClient, snapshot: StepResult, name: str, tags: Mapping[str, str]
) -> str:
    from recaster.tracking.runs import ensure_run

    return ensure_run(
        client,
        settings=cast.settings,
        experiment=cast.recipe.name,
        name=f"{cast.recipe.name}-{name[:8]}",
        fingerprint=name,
        params=flatten(cast.recipe.model_dump(mode="json", exclude={"search"})),
        tags={**_run_tags(cast, snapshot), **tags},
        data={"version": snapshot.content, "source": cast.recipe.data.source},
    )


def _run_tags(cast: Cast, snapshot: StepResult) -> dict[str, str]:
    from recaster.versioning.code_versions import read_commit

    tags = {
        "recaster.recipe": hash_recipe(cast.recipe),
        "recaster.data_version": snapshot.content,
        "mlflow.source.name": f"recaster run {cast.path.name}",
    }
    with suppress(KeyError, OSError):  # a container's process may run under an id without a name
        tags["mlflow.user"] = getpass.getuser()
    if found := read_commit(cast.settings.project):
        commit, changed = found
        tags |= {"mlflow.source.git.commit": commit, "recaster.git_changed": json.dumps(changed)}
    return tags


def _close_run(forwarder: JournalForwarder, reporter: Reporter, status: str) -> None:
    """Send what is left and end the run; a server that is away costs nothing but a line."""
    try:
        forwarder.finish(status)
    except ServiceError as error:
        reporter.say(f"warning: {error.what} The journal is kept, and sent when the model is registered.")


def compute_features(cast: Cast, prepared: StepResult, reporter: Reporter) -> StepResult | None:
    """What the frozen base makes of each prepared row, computed once; None for methods that train more.

    Raises:
        RecipeError: the model has no head of its own.
    """
    base = find_base(cast)
    if cast.recipe.customize.method != "probe" or base is None:
        return None

    def build(folder: Path) -> dict[str, Any]:
        from recaster.customization import probe
        from recaster.training.host_memory import give_back_memory, keep_freed_memory

        reporter.say("computing the frozen encoder's features, once, of rows without augmentation")
        plan = training_plan(cast, prepared)
        keep_freed_memory()  # page faults of activations are half of a small network's time
        facts = probe.compute_features(
            cast.workload.build_model(plan),
            lambda split: cast.workload.open_split(prepared.path, split, plan),
            folder,
            splits=("train", "validation"),
        )
        give_back_memory()
        return facts

    return run_step(cast.settings.steps, "features", features_inputs(cast, prepared, base), build)


def read_plan(cast: Cast, trained: StepResult) -> dict[str, Any]:
    """The plan of a finished training, with the places of its inputs as they are now."""
    plan: dict[str, Any] = read_json(trained.path / "plan.json")
    for name in ("prepared", "base", "teacher", "critic", "features", "vectors"):
        if plan.get(name):
            step, fingerprint = Path(plan[name]).parts[-2:]
            plan[name] = str(cast.settings.steps / step / fingerprint)
    return plan


def export(cast: Cast, trained: StepResult) -> StepResult:
    """Write the open artifact: weights, config, preprocessing and what else is needed to read them."""

    def build(folder: Path) -> dict[str, Any]:
        plan = read_plan(cast, trained)
        cast.workload.export(plan, cast.recipe, trained.path / "weights.safetensors", folder)
        (weights,) = folder.glob("*model.safetensors")
        return {"weights_sha256": hash_file(weights)}

    return run_step(cast.settings.steps, "export", export_inputs(cast, trained), build)


def evaluate(cast: Cast, prepared: StepResult, trained: StepResult) -> StepResult:
    """Export the model, predict the held-out split, measure and draw; and the base, where that can answer."""
    from recaster.workloads.protocol import Generative

    artifact, base = export(cast, trained).path, find_base(cast)
    untuned = None
    if base and isinstance(cast.workload, Generative) and cast.workload.answers(base.path, prepared.path):
        untuned = evaluate_artifact(cast, prepared, base.path, None)
    return evaluate_artifact(cast, prepared, artifact, trained.path / "journal.jsonl", untuned=untuned)


def evaluate_artifact(
    cast: Cast,
    prepared: StepResult,
    artifact: Path,
    journal: Path | None,
    *,
    untuned: StepResult | None = None,
) -> StepResult:
    """Measure any model directory on this cast's held-out split, and draw what there is to see.

    Args:
        journal: of the training, for its curve; None for a model trained elsewhere.
        untuned: the same of the model's base, to be told beside it.
    """
    from recaster.evaluation.metrics import measure
    from recaster.workloads.protocol import Explained, Illustrated

    section, workload = cast.recipe.evaluate, cast.workload

    def build(folder: Path) -> dict[str, Any]:
        import numpy as np

        from recaster.evaluation.plots import plot_training
        from recaster.training.host_memory import give_back_memory, keep_freed_memory
        from recaster.training.journal import read_journal

        keep_freed_memory()  # page faults of activations are half of a small network's time
        predictions, targets = workload.predict(artifact, prepared.path, "test")
        give_back_memory()
        np.save(folder / "predictions.npy", predictions)
        np.save(folder / "targets.npy", targets)
        if journal:
            plot_training(read_journal(journal), folder / "training.png")
        measured = measure(predictions, targets, workload.metrics(section), section)
        facts = {"metrics": measured, "rows": len(targets)}
        tables = workload.report(cast.recipe, predictions, targets, prepared.path, folder)
        if isinstance(workload, Explained):
            tables |= workload.explain(
                artifact,
                cast.recipe,
                predictions=predictions,
                targets=targets,
                prepared=prepared.path,
                folder=folder,
            )
        # Trust in the judge is measured once, and not again for the base and the champion.
        tables |= _read_written(cast, artifact, prepared.path, untuned, trust=bool(journal))
        measured |= tables.pop("measured", {})
        if isinstance(workload, Illustrated):
            sketches = journal.with_name("sketches") if journal else None
            workload.illustrate(artifact, prepared.path, sketches, folder)
        if untuned:
            facts["untuned"] = untuned.facts["metrics"]
        write_json(folder / "metrics.json", {**facts, **tables})
        return facts

    return run_step(cast.settings.steps, "evaluate", evaluate_inputs(cast, prepared, artifact), build)


def _read_written(
    cast: Cast, artifact: Path, prepared: Path, untuned: StepResult | None, *, trust: bool
) -> dict[str, Any]:
    """Tables of what a model writes, where its workload does; judged, where there is a judge."""
    from recaster.workloads.protocol import Generative, Judged

    workload = cast.workload
    if not isinstance(workload, Generative):
        return {}
    tables = workload.write_samples(artifact, prepared, cast.recipe)
    judge = find_judge(cast) if isinstance(workload, Judged) else None
    if isinstance(workload, Judged) and judge:
        trusted = workload.judge(judge.path, tables, prepared, cast.recipe, trust=trust)
        sides = compare_judged(cast, tables["replies"], untuned)
        tables["judge"] = {"trust": trusted, "against_untuned": sides}
    return tables


def compare_judged(
    cast: Cast, replies: list[dict[str, Any]], other: StepResult | None
) -> dict[str, float] | None:
    """How often the judge prefers these replies to those of another evaluation; None without its scores."""
    from recaster.evaluation.chat_judge import compare_replies

    former = read_json(other.path / "metrics.json").get("replies", []) if other else []
    if not all("score" in row for row in [*replies, *former]):
        return None
    return compare_replies(replies, former, cast.recipe.evaluate)
