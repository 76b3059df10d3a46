"""A whole cast by verb: snapshot, validate, prepare, train, evaluate, register, promote.

Each verb is a step: a pure function of references to references, found again by its fingerprint.
Works from a notebook without Prefect:

    cast = open_cast(Path("recipes/digits.yaml"))
    raw = snapshot(cast, SilentReporter())
"""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.core.clock import now
from recaster.core.errors import ContractError, DataError, RecipeError
from recaster.core.files import read_json, write_bytes, write_json
from recaster.core.hashing import hash_directory, hash_file, hash_sources
from recaster.core.locks import hold_lock, is_held, read_holder
from recaster.core.progress import Reporter
from recaster.core.settings import Settings, ensure_home, find_settings
from recaster.core.steps import StepResult, find_step, fingerprint, run_step
from recaster.recipe.load import hash_recipe, load_recipe
from recaster.recipe.schema import Recipe

if TYPE_CHECKING:
    from recaster.workloads.protocol import Workload

VERBS = ("snapshot", "validate", "prepare", "train", "evaluate", "register", "promote")
_CODE = {
    "snapshot": ("data.sources", "data.packed"),
    "validate": ("data.contract",),
    "prepare": ("data.packed", "data.split", "data.shards", "workloads"),
    "train": ("training", "distributed", "models", "workloads", "data.shards", "core.seeds"),
    "evaluate": ("evaluation", "workloads", "models"),
    "register": ("registry", "exporting", "serving"),
    "promote": ("registry",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """One run of one recipe."""

    recipe: Recipe
    path: Path
    overrides: tuple[str, ...]
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSummary:
    """How one step went."""

    step: str
    ref: str
    seconds: float
    reused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CastSummary:
    """What a cast ended with."""

    name: str
    data_version: str
    metrics: dict[str, dict[str, float]]
    """`{metric: {value, low, high}}` on the held-out split."""
    accepted: bool
    reasons: list[str]
    model_version: str
    champion: str
    """The champion's version after the cast; empty when there is none."""
    steps: list[StepSummary]

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values."""
        return asdict(self)

    def to_markdown(self) -> str:
        """The summary for a page."""
        rows = [
            f"| {name} | {m['value']:.4f} | {m['low']:.4f} | {m['high']:.4f} |"
            for name, m in self.metrics.items()
        ]
        steps = [
            f"| {s.step} | {s.seconds:.1f} | {'found finished' if s.reused else 'done'} |" for s in self.steps
        ]
        verdict = "promoted" if self.accepted else "refused"
        head = [
            f"# {self.name} version {self.model_version}: {verdict}",
            "",
            *(f"- {r}" for r in self.reasons),
        ]
        head += [
            "",
            f"Champion: version {self.champion or 'none'}. Data version `{self.data_version[:12]}`.",
            "",
        ]
        table = ["| metric | value | low | high |", "|---|---:|---:|---:|", *rows, ""]
        return "\n".join([*head, *table, "| step | seconds | |", "|---|---:|---|", *steps])


def open_cast(path: Path, overrides: Sequence[str] = ()) -> Cast:
    """Read the recipe and find its project.

    Raises:
        RecipeError: the recipe, an override, or its workload is wrong.
    """
    recipe = load_recipe(path, overrides)
    cast = Cast(recipe=recipe, path=path, overrides=tuple(overrides), settings=find_settings(path))
    if not _workload_file(recipe).exists():
        known = sorted(
            file.stem.replace("_", "-") for file in _workload_file(recipe).parent.glob("[a-z]*.py")
        )
        raise RecipeError(
            "The recipe names an unknown workload.",
            where=f"{path}, key workload",
            value=recipe.workload,
            repair=f"use one of: {', '.join(name for name in known if name != 'protocol')}",
        )
    return cast


@contextmanager
def hold_model(cast: Cast, *, wait_seconds: float, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the model's name for the body, so that two casts of it never interleave.

    Raises:
        LockHeldError: another cast held it for all of `wait_seconds`.
    """
    ensure_home(cast.settings)
    lock = cast.settings.home / "locks" / f"{cast.recipe.name}.lock"
    with hold_lock(lock, name=f"model {cast.recipe.name}", wait_seconds=wait_seconds, on_wait=on_wait):
        yield


def check_services(cast: Cast) -> None:
    """Fail early when the home folder or MLflow cannot be used.

    Raises:
        StorageError, ServiceError: with the repair.
    """
    from recaster.tracking.runs import open_tracking

    ensure_home(cast.settings)
    open_tracking(cast.settings)


def snapshot(cast: Cast, reporter: Reporter) -> StepResult:
    """Pack the raw data set, good and bad records alike.

    Raises:
        DataError: the source is missing or of no known kind.
    """
    from recaster.data.packed import write_packed
    from recaster.data.sources import read_records

    def build(folder: Path) -> dict[str, Any]:
        records = read_records(cast.recipe.data, cast.settings.project)
        return {"rows": write_packed(records, folder)}

    result = run_step(cast.settings.steps, "snapshot", _snapshot_inputs(cast), build)
    reporter.say(f"snapshot: {result.facts['rows']} records, version {result.content[:12]}")
    return result


def validate(cast: Cast, snapshot: StepResult) -> StepResult:
    """Check the data contract; bad rows go to quarantine.

    Raises:
        ContractError: the data set is refused; the report is kept under HOME/refused.
    """
    from recaster.data.contract import check_contract, collect_facts

    workload, recipe = _workload(cast.recipe), cast.recipe

    def build(folder: Path) -> dict[str, Any]:
        try:
            return check_contract(
                collect_facts(snapshot.path),
                workload.rules(recipe),
                data=recipe.data,
                contract=recipe.contract,
                folder=folder,
            )
        except ContractError as error:
            kept = cast.settings.home / "refused" / recipe.name
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            error.repair = error.repair.replace(str(folder), str(kept))
            raise

    return run_step(cast.settings.steps, "validate", _validate_inputs(cast, snapshot), build)


def prepare(cast: Cast, snapshot: StepResult, validation: StepResult) -> StepResult:
    """Split without leakage, write shards, and record all three data stages with DVC."""
    import numpy as np

    workload = _workload(cast.recipe)

    def build(folder: Path) -> dict[str, Any]:
        accepted = np.load(validation.path / "accepted.npy")
        return workload.prepare(cast.recipe, snapshot.path, accepted, folder)

    return run_step(cast.settings.steps, "prepare", _prepare_inputs(cast, snapshot, validation), build)


def version_data(
    cast: Cast, snapshot: StepResult, validation: StepResult, prepared: StepResult
) -> StepResult:
    """Mirror the data steps into the work tree and commit them with DVC, once for the same content."""
    from recaster.versioning.data_versions import commit_stages, mirror_step

    results = [snapshot, validation, prepared]

    def build(folder: Path) -> dict[str, Any]:
        for result in results:
            mirror_step(cast.settings, cast.recipe.name, result)
        versions = commit_stages(cast.settings, cast.recipe.name, [result.step for result in results])
        write_json(folder / "versions.json", versions)
        return {"versions": versions}

    inputs = {"project": str(cast.settings.project), "content": [result.ref for result in results]}
    return run_step(cast.settings.steps, "version", inputs, build)


def train(cast: Cast, prepared: StepResult, snapshot: StepResult, reporter: Reporter) -> StepResult:
    """Train over the recipe's ranks, going on from the newest checkpoint.

    Raises:
        DivergedError, CheckpointError, TrainingError: see training/supervise.py.
    """
    from recaster.tracking.runs import JournalForwarder, end_run, ensure_run, open_tracking
    from recaster.training import supervise

    recipe, inputs = cast.recipe, _train_inputs(cast, prepared)
    if found := find_step(cast.settings.steps, "train", inputs):
        return found
    client = open_tracking(cast.settings)
    run_id = ensure_run(
        client,
        settings=cast.settings,
        experiment=recipe.name,
        name=f"{recipe.name}-{fingerprint(inputs)[:8]}",
        fingerprint=fingerprint(inputs),
        params=_flatten(recipe.model_dump(mode="json")),
        tags={"recaster.recipe": hash_recipe(recipe), "recaster.data_version": snapshot.content},
        data_version=snapshot.content,
        data_source=recipe.data.source,
    )

    def build(folder: Path) -> dict[str, Any]:
        forwarder = JournalForwarder(cast.settings, run_id, folder / "journal.jsonl")
        result = supervise.train(folder, _plan(cast, prepared), reporter=reporter, forwarder=forwarder)
        forwarder.finish()
        return {**result, "run_id": run_id}

    result = run_step(cast.settings.steps, "train", inputs, build, resumable=True)
    end_run(client, run_id, uri=cast.settings.tracking_uri)
    return result


def evaluate(cast: Cast, prepared: StepResult, trained: StepResult) -> StepResult:
    """Export the model, predict the held-out split, measure and draw."""
    artifact = _export(cast, trained)
    return _evaluate_artifact(cast, prepared, artifact, trained.path / "journal.jsonl")


def _evaluate_artifact(cast: Cast, prepared: StepResult, artifact: Path, journal: Path | None) -> StepResult:
    from recaster.evaluation.metrics import class_table, confusion_matrix, measure

    section, labels = cast.recipe.evaluate, cast.recipe.data.labels

    def build(folder: Path) -> dict[str, Any]:
        import numpy as np

        from recaster.evaluation.plots import plot_confusion, plot_reliability, plot_training
        from recaster.training.journal import read_journal

        probabilities, targets = _workload(cast.recipe).predict(artifact, prepared.path, "test")
        np.save(folder / "probabilities.npy", probabilities)
        np.save(folder / "targets.npy", targets)
        matrix = confusion_matrix(probabilities, targets)
        plot_confusion(matrix, labels, folder / "confusion.png")
        plot_reliability(probabilities, targets, section.calibration_bins, folder / "reliability.png")
        if journal:
            plot_training(read_journal(journal), folder / "training.png")
        facts = {"metrics": measure(probabilities, targets, section), "rows": len(targets)}
        write_json(folder / "metrics.json", {**facts, "classes": class_table(probabilities, targets, labels)})
        write_json(folder / "confusion.json", matrix.tolist())
        return facts

    inputs = {
        "artifact": hash_directory(artifact, leave_out=["README.md", "manifest.json"]),
        "prepared": prepared.content,
        "evaluate": section.model_dump(),
        "code": hash_sources(*_CODE["evaluate"]),
    }
    return run_step(cast.settings.steps, "evaluate", inputs, build)


def _export(cast: Cast, trained: StepResult) -> Path:
    """The bare model directory: weights, architecture, configuration, preprocessing."""
    from recaster.exporting.artifact import write_artifact

    workload, recipe = _workload(cast.recipe), cast.recipe
    arguments, image = workload.model_arguments(recipe), recipe.data.image.model_dump()

    def build(folder: Path) -> dict[str, Any]:
        write_artifact(
            folder,
            weights=trained.path / "weights.safetensors",
            modeling=workload.modeling_file(recipe),
            arguments=arguments,
            labels=recipe.data.labels,
            preprocessing=image,
        )
        return {}

    inputs = {
        "weights": trained.facts["weights_sha256"],
        "arguments": arguments,
        "labels": recipe.data.labels,
        "image": image,
        "code": hash_sources("exporting", "models"),
    }
    return run_step(cast.settings.steps, "export", inputs, build).path


def register(  # noqa: PLR0917 - one reference from each step
    cast: Cast,
    snapshot: StepResult,
    validation: StepResult,
    prepared: StepResult,
    trained: StepResult,
    evaluation: StepResult,
) -> StepResult:
    """Log results and create one model version, an ordinary MLflow model from code."""
    from recaster.exporting.card import write_card
    from recaster.registry.versions import register_version
    from recaster.tracking.runs import log_results, open_tracking

    recipe, run_id = cast.recipe, trained.facts["run_id"]
    inputs = {
        "run_id": run_id,
        "evaluation": evaluation.ref,
        "store": cast.settings.tracking_uri,
        "code": hash_sources(*_CODE["register"]),
    }

    def build(folder: Path) -> dict[str, Any]:
        client, artifact = open_tracking(cast.settings), folder / "model"
        shutil.copytree(_export(cast, trained), artifact, ignore=shutil.ignore_patterns("manifest.json"))
        table = read_json(evaluation.path / "metrics.json")["classes"]
        write_card(
            artifact,
            recipe,
            data_version=snapshot.content,
            metrics=evaluation.facts["metrics"],
            classes=table,
        )
        log_results(
            client,
            run_id,
            uri=cast.settings.tracking_uri,
            metrics={name: entry["value"] for name, entry in evaluation.facts["metrics"].items()},
            files=[
                *sorted(evaluation.path.glob("*.png")),
                evaluation.path / "metrics.json",
                validation.path / "report.md",
            ],
        )
        version = register_version(
            client,
            name=recipe.name,
            run_id=run_id,
            artifact=artifact,
            fingerprint=fingerprint(inputs),
            tags={"recaster.data_version": snapshot.content, "recaster.prepared": prepared.content},
        )
        return {"name": recipe.name, "version": version, "run_id": run_id}

    return run_step(cast.settings.steps, "register", inputs, build)


def promote(cast: Cast, registered: StepResult, prepared: StepResult, evaluation: StepResult) -> StepResult:
    """Hold the new version against the bar and the champion; move the alias only on yes."""
    import numpy as np

    from recaster.evaluation.metrics import paired_difference
    from recaster.registry.gate import decide
    from recaster.registry.versions import (
        fetch_artifact,
        find_champion,
        mark_challenger,
        promote_version,
        rolled_back_at,
    )
    from recaster.tracking.runs import open_tracking

    client, recipe, version = open_tracking(cast.settings), cast.recipe, registered.facts["version"]
    champion = find_champion(client, recipe.name)
    taken_out = rolled_back_at(client, recipe.name, version)

    def build(folder: Path) -> dict[str, Any]:
        if taken_out:
            repair = f"`recaster promote {recipe.name} --version {version}` puts it back"
            reason = f"version {version} was taken out of production by hand at {taken_out}; {repair}"
            return {"accepted": False, "reasons": [reason], "version": version}
        other, difference = None, None
        if champion and champion != version:
            artifact = fetch_artifact(client, recipe.name, champion, folder / "champion")
            former = _evaluate_artifact(cast, prepared, artifact, None)
            other = {name: entry["value"] for name, entry in former.facts["metrics"].items()}
            difference = paired_difference(
                np.load(evaluation.path / "probabilities.npy"),
                np.load(former.path / "probabilities.npy"),
                np.load(evaluation.path / "targets.npy"),
                recipe.gate.champion.metric,
                recipe.evaluate,
            )
        values = {name: entry["value"] for name, entry in evaluation.facts["metrics"].items()}
        verdict = decide(recipe.gate, values, other, difference, champion or "")
        if verdict.accepted:
            promote_version(
                client, recipe.name, version, over=champion or "", reason="; ".join(verdict.reasons)
            )
        else:
            mark_challenger(client, recipe.name, version)
        return {"accepted": verdict.accepted, "reasons": verdict.reasons, "version": version}

    inputs = {
        "version": version,
        "registered": registered.ref,
        "champion": None if champion == version else champion,
        "taken_out": taken_out,
        "evaluation": evaluation.ref,
        "gate": recipe.gate.model_dump(),
        "code": hash_sources(*_CODE["promote"]),
    }
    if champion == version and (done := _last_verdict(cast, version)):
        return done
    return run_step(cast.settings.steps, "promote", inputs, build)


def run(cast: Cast, reporter: Reporter) -> CastSummary:
    """The whole cast in this process, without an orchestrator."""
    raw = snapshot(cast, reporter)
    checked = validate(cast, raw)
    prepared = prepare(cast, raw, checked)
    version_data(cast, raw, checked, prepared)
    trained = train(cast, prepared, raw, reporter)
    evaluated = evaluate(cast, prepared, trained)
    registered = register(cast, raw, checked, prepared, trained, evaluated)
    promoted = promote(cast, registered, prepared, evaluated)
    return summarize(cast, [raw, checked, prepared, trained, evaluated, registered, promoted])


def run_to(cast: Cast, verb: str, reporter: Reporter, *, place: bool = False) -> StepResult:
    """Run the verbs up to `verb`, `evaluate` at most.

    Args:
        place: put a data step's result to its place in the work tree, for DVC to take up.

    Raises:
        RecipeError: there is no such verb.
    """
    verbs = VERBS[:5]
    if verb not in verbs:
        raise RecipeError(
            "There is no such step.",
            where="the command line",
            value=verb,
            repair=f"use one of: {', '.join(verbs)}",
        )
    raw = result = snapshot(cast, reporter)
    if verb != "snapshot":
        checked = result = validate(cast, raw)
    if verb in VERBS[2:]:
        prepared = result = prepare(cast, raw, checked)
    if verb in VERBS[3:]:
        trained = result = train(cast, prepared, raw, reporter)
    if verb in VERBS[4:]:
        result = evaluate(cast, prepared, trained)
    if place:
        from recaster.versioning.data_versions import mirror_step

        mirror_step(cast.settings, cast.recipe.name, result)
    return result


def summarize(cast: Cast, steps: Sequence[StepResult]) -> CastSummary:
    """Sum a finished cast up, and record it under HOME/casts when it did any work."""
    found = {result.step: result for result in steps}
    verdict, version = found["promote"].facts, found["register"].facts["version"]
    summary = CastSummary(
        name=cast.recipe.name,
        data_version=found["snapshot"].content,
        metrics=found["evaluate"].facts["metrics"],
        accepted=verdict["accepted"],
        reasons=verdict["reasons"],
        model_version=version,
        champion=_champion(cast),
        steps=[StepSummary(step=s.step, ref=s.ref, seconds=s.seconds, reused=s.reused) for s in steps],
    )
    if not all(result.reused for result in steps):
        folder = cast.settings.home / "casts"
        number = len(list(folder.glob("*.json"))) + 1
        write_json(
            folder / f"{number:06d}.json",
            {
                "finished": now(),
                "recipe": hash_recipe(cast.recipe),
                "code": _code_version(),
                **summary.to_json(),
            },
        )
    return summary


def find_finished(cast: Cast) -> CastSummary | None:  # noqa: PLR0911 - each return is one reason to do work
    """The summary of a cast in which nothing is left to do, or None; imports no torch, MLflow or Prefect.

    Asks the registry's own tables whether the version is still champion (or was refused).
    """
    import sqlite3

    settings, found = cast.settings, [find_step(cast.settings.steps, "snapshot", _snapshot_inputs(cast))]
    builders: list[Callable[..., dict[str, Any]]] = [_validate_inputs, _prepare_inputs]
    for verb, builder in zip(VERBS[1:3], builders, strict=True):
        if found[-1] is None:
            return None
        found.append(find_step(settings.steps, verb, builder(cast, *found)))
    recorded = [
        cast_file
        for cast_file in history(settings, cast.recipe.name)
        if cast_file.get("recipe") == hash_recipe(cast.recipe)
    ]
    prepared = found[-1]
    if prepared is None or not recorded or not settings.local_tracking:
        return None
    last = recorded[-1]
    refs = {step["step"]: step["ref"] for step in last["steps"]}
    if any(result is not None and refs[result.step] != result.ref for result in found):
        return None
    if (
        refs["train"] != f"train/{fingerprint(_train_inputs(cast, prepared))}"
        or last["code"] != _code_version()
    ):
        return None
    store = settings.tracking_uri.removeprefix("sqlite:///")
    if not Path(store).exists():
        return None
    query = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'champion'"
    with contextlib.closing(
        sqlite3.connect(f"file:{urllib.parse.quote(store)}?mode=ro", uri=True)
    ) as database:
        champion = database.execute(query, [cast.recipe.name]).fetchone()
    if (str(champion[0]) if champion else "") != last["champion"]:
        return None
    steps = [StepSummary(**{**step, "reused": True}) for step in last["steps"]]
    known = {
        field: last[field]
        for field in ("name", "data_version", "metrics", "accepted", "reasons", "model_version", "champion")
    }
    return CastSummary(**known, steps=steps)


def _code_version() -> str:
    return hash_sources(*sorted({module for modules in _CODE.values() for module in modules}))


def status(settings: Settings) -> dict[str, Any]:
    """The casts that run now and the last one of each model."""
    locks = sorted((settings.home / "locks").glob("*.lock")) if settings.home.exists() else []
    last = {cast["name"]: cast for cast in history(settings)}
    return {
        "home": str(settings.home),
        "tracking": settings.tracking_uri,
        "running": {lock.stem: read_holder(lock) for lock in locks if is_held(lock)},
        "models": {
            name: {key: cast[key] for key in ("finished", "champion", "accepted")}
            for name, cast in last.items()
        },
    }


def promote_by_hand(settings: Settings, name: str, version: str) -> dict[str, Any]:
    """Make `version` champion, whatever the gate said.

    Raises:
        RecipeError: there is no such version.
    """
    from recaster.registry.versions import find_champion, list_versions, promote_version, take_out
    from recaster.tracking.runs import open_tracking

    client = open_tracking(settings)
    known = [str(entry.version) for entry in list_versions(client, name)]
    if version not in known:
        raise RecipeError(
            "There is no such model version.",
            where=name,
            value=version,
            repair=f"use one of: {', '.join(known) or 'none yet'}",
        )
    former = find_champion(client, name) or ""
    if former != version:
        if former:
            take_out(client, name, former)
        promote_version(client, name, version, over=former, reason="by hand")
    return {"name": name, "champion": version, "former": former}


def roll_back_champion(settings: Settings, name: str) -> dict[str, Any]:
    """Give the alias back to the champion before the present one."""
    from recaster.registry.versions import roll_back
    from recaster.tracking.runs import open_tracking

    return {"name": name, **asdict(roll_back(open_tracking(settings), name))}


def predict(settings: Settings, name: str, source: Path, *, alias: str = "champion") -> list[dict[str, Any]]:
    """Labels and probabilities of the pictures in `source` by the version that `alias` names."""
    import numpy as np

    from recaster.data.sources import read_records
    from recaster.recipe.schema import DataSection
    from recaster.registry.versions import load_model
    from recaster.tracking.runs import open_tracking

    model, labels, image = load_model(open_tracking(settings), name, alias)
    section = DataSection(source=str(source.resolve()), licence="-", labels=labels, image=image)
    records = list(read_records(section, settings.project))
    bad = [record for record in records if record.pixels is None]
    pixels = [record.pixels for record in records if record.pixels is not None]
    if bad or not records:
        raise DataError(
            "Some pictures cannot be read." if bad else "There are no pictures.",
            where=bad[0].where if bad else str(source),
            value=bad[0].problem if bad else None,
            repair="name a .jsonl, a .csv or an image folder of readable pictures",
        )
    frame: Any = model.predict(np.stack(pixels))
    return [{"id": record.id, **row} for record, row in zip(records, frame.to_dict("records"), strict=True)]


def new_recipe(settings: Settings, name: str) -> Path:
    """Write `recipes/NAME.yaml` from the digits recipe, for its owner to edit.

    Raises:
        RecipeError: it exists already.
    """
    target = settings.project / "recipes" / f"{name}.yaml"
    template = settings.project / "recipes" / "digits.yaml"
    if target.exists() or not template.exists():
        what = "The recipe exists already." if target.exists() else "There is no recipe to start from."
        raise RecipeError(
            what,
            where=str(target if target.exists() else template),
            repair="choose another name, or run inside a project",
        )
    write_bytes(target, template.read_text().replace("name: digits", f"name: {name}").encode())
    load_recipe(target)
    return target


def history(settings: Settings, name: str | None = None) -> list[dict[str, Any]]:
    """Recorded casts, oldest first."""
    casts = [read_json(path) for path in sorted((settings.home / "casts").glob("*.json"))]
    return [cast for cast in casts if name in {None, cast["name"]}]


def _champion(cast: Cast) -> str:
    from recaster.registry.versions import find_champion
    from recaster.tracking.runs import open_tracking

    return find_champion(open_tracking(cast.settings), cast.recipe.name) or ""


def _last_verdict(cast: Cast, version: str) -> StepResult | None:
    """The promotion that made `version` champion."""
    for path in sorted((cast.settings.steps / "promote").glob("*/manifest.json")):
        manifest = read_json(path)
        if manifest["facts"]["version"] == version and manifest["facts"]["accepted"]:
            return find_step(cast.settings.steps, "promote", manifest["inputs"])
    return None


def _workload_file(recipe: Recipe) -> Path:
    return Path(__file__).parent / "workloads" / f"{recipe.workload.replace('-', '_')}.py"


def _workload(recipe: Recipe) -> Workload:
    workload: Workload = importlib.import_module(_module(recipe)).WORKLOAD
    return workload


def _module(recipe: Recipe) -> str:
    return f"recaster.workloads.{_workload_file(recipe).stem}"


def _snapshot_inputs(cast: Cast) -> dict[str, Any]:
    from recaster.data.sources import hash_source

    data = cast.recipe.data
    return {
        "data": data.model_dump(),
        "source": hash_source(data, cast.settings.project),
        "code": hash_sources(*_CODE["snapshot"]),
    }


def _validate_inputs(cast: Cast, snapshot: StepResult) -> dict[str, Any]:
    return {
        "snapshot": snapshot.content,
        "data": cast.recipe.data.model_dump(),
        "contract": cast.recipe.contract.model_dump(),
        "code": hash_sources(*_CODE["validate"]),
    }


def _prepare_inputs(cast: Cast, snapshot: StepResult, validation: StepResult) -> dict[str, Any]:
    return {
        "snapshot": snapshot.content,
        "accepted": hash_file(validation.path / "accepted.npy"),
        "data": cast.recipe.data.model_dump(),
        "split": cast.recipe.split.model_dump(),
        "code": hash_sources(*_CODE["prepare"]),
    }


def _train_inputs(cast: Cast, prepared: StepResult) -> dict[str, Any]:
    recipe = cast.recipe
    return {
        "name": recipe.name,
        "workload": recipe.workload,
        "prepared": prepared.content,
        "model": recipe.model.model_dump(),
        "train": recipe.train.model_dump(),
        "distributed": recipe.distributed.model_dump(),
        "store": cast.settings.tracking_uri,
        "code": hash_sources(*_CODE["train"]),
    }


def _plan(cast: Cast, prepared: StepResult) -> dict[str, Any]:
    recipe = cast.recipe
    return {
        "workload_module": _module(recipe),
        "prepared": str(prepared.path),
        "model_arguments": _workload(recipe).model_arguments(recipe),
        "train": recipe.train.model_dump(),
        "distributed": recipe.distributed.model_dump(),
    }


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat
