"""What the model card says beside the recipe, gathered from the steps that made the model."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from recaster.core.files import read_json
from recaster.core.steps import StepResult
from recaster.pipeline.base_verbs import find_base, find_critic, find_teacher
from recaster.pipeline.open_cast import Cast
from recaster.pipeline.vector_verbs import find_open_vectors, vectors_licence

if TYPE_CHECKING:
    from recaster.exporting.card import CardFacts, Origin, Training

_HUB = "https://huggingface.co/"


def collect_facts(cast: Cast, snapshot: StepResult, trained: StepResult, evaluation: StepResult) -> CardFacts:
    """The facts of a finished cast."""
    from recaster.exporting.card import CardFacts, Origin

    base, teacher, recipe = find_base(cast), find_teacher(cast), cast.recipe
    named = (("base model", base), ("teacher", teacher), ("discriminator's encoder", find_critic(cast)))
    chain = [_to_origin(what, found) for what, found in named if found]
    if found := find_open_vectors(cast):
        chain.append(_to_origin("word vectors", found))
    elif vectors := recipe.model.vectors:
        chain.append(Origin(what="word vectors", name=vectors, licence=vectors_licence(cast)))
    chain.append(Origin(what="data", name=recipe.data.source, licence=recipe.data.licence))
    page = chain[0].page if base else None
    told = read_json(evaluation.path / "metrics.json")
    return CardFacts(
        data_version=snapshot.content,
        rows=evaluation.facts["rows"],
        metrics=evaluation.facts["metrics"],
        classes=told.get("classes", []),
        judge=told.get("judge"),
        slices=[row for row in told.get("slices", []) if "accuracy" in row],
        baseline=told.get("word_average"),
        chain=chain,
        training=_describe_training(cast, trained),
        base_model=page.removeprefix(_HUB) if page and page.startswith(_HUB) else None,
    )


def _to_origin(what: str, found: StepResult) -> Origin:
    from recaster.bases.catalogue import find_known
    from recaster.exporting.card import Origin

    reference = found.facts["reference"]
    known = find_known(reference)
    page = known.page if known else None
    if reference.startswith("hf:"):
        page = _HUB + reference.removeprefix("hf:").partition("@")[0]
    return Origin(what=what, name=reference, licence=found.facts["licence"], page=page)


def _describe_training(cast: Cast, trained: StepResult) -> Training:
    from recaster.exporting.card import Training
    from recaster.preflight.power import find_power
    from recaster.training.journal import JOURNAL, read_journal
    from recaster.versioning.code_versions import read_commit

    facts: dict[str, Any] = trained.facts
    seconds = measure_seconds(read_journal(trained.path / JOURNAL)) or trained.seconds
    cores = facts["ranks"] * facts["threads_per_rank"]
    power = find_power(cast.settings.watts, None, cores=cores, device=facts["device"])
    found = read_commit(cast.settings.project)
    commit = f", commit {found[0][:12]}{' with changes' if found[1] else ''}" if found else ""
    return Training(
        method=cast.recipe.customize.method,
        parameters=facts["parameters"],
        trained_parameters=facts["trained_parameters"],
        ranks=facts["ranks"],
        device=facts["device"],
        seconds=seconds,
        watt_hours=power.watts * seconds / 3600 if power else None,
        power=power.source if power else "set RECASTER_WATTS to what the machine takes",
        code=f"Recaster {version('recaster')}{commit}",
    )


def measure_seconds(journal: list[dict[str, Any]]) -> float | None:
    """Wall time of all steps, by the times of a journal's records; None for a journal of one record.

    The pause of a run that was cut and went on counts too.
    """
    steps = [record for record in journal if record["kind"] == "train"]
    first, last = (steps[0], journal[-1]) if steps else ({}, {})
    if not steps or last["step"] == first["step"]:
        return None
    # What came before the first record took as long as the same number of steps after it.
    span = last["time"] - first["time"]
    return float(span * last["step"] / (last["step"] - first["step"]))
