"""What a cast ended with, and the record of former casts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recaster.core.clock import now
from recaster.core.files import read_json, write_json
from recaster.core.locks import is_held, read_holder
from recaster.core.settings import Settings
from recaster.core.steps import StepResult
from recaster.pipeline.inputs import code_of_all
from recaster.pipeline.open_cast import Cast
from recaster.recipe.load import hash_recipe
from recaster.registry.alias import UNKNOWN, read_champion


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

    def to_sentence(self) -> str:
        """The verdict and why, in one line."""
        verdict = "promoted" if self.accepted else "refused"
        return f"{self.name} version {self.model_version} {verdict}: {'; '.join(self.reasons)}"

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
        champion = f"Champion: version {self.champion or 'none'}. Data version `{self.data_version[:12]}`."
        head = [f"# {self.name} version {self.model_version}: {verdict}", ""]
        head += [*(f"- {reason}" for reason in self.reasons), "", champion, ""]
        table = ["| metric | value | low | high |", "|---|---:|---:|---:|", *rows, ""]
        return "\n".join([*head, *table, "| step | seconds | |", "|---|---:|---|", *steps])


def summarize(cast: Cast, steps: Sequence[StepResult]) -> CastSummary:
    """Sum a finished cast up, and record it under HOME/casts when it did any work.

    Raises:
        ServiceError: MLflow does not say who is champion.
    """
    from recaster.registry.versions import find_champion
    from recaster.tracking.runs import open_tracking, service_errors

    found = {result.step: result for result in steps}
    verdict, version = found["promote"].facts, found["register"].facts["version"]
    with service_errors(cast.settings.tracking_uri):
        champion = find_champion(open_tracking(cast.settings), cast.recipe.name) or ""
    summary = CastSummary(
        name=cast.recipe.name,
        data_version=found["snapshot"].content,
        metrics=found["evaluate"].facts["metrics"],
        accepted=verdict["accepted"],
        reasons=verdict["reasons"],
        model_version=version,
        champion=champion,
        steps=[StepSummary(step=s.step, ref=s.ref, seconds=s.seconds, reused=s.reused) for s in steps],
    )
    if not all(result.reused for result in steps):
        _record(cast, summary)
    return summary


def _record(cast: Cast, summary: CastSummary) -> None:
    folder = cast.settings.home / "casts"
    number = max((int(path.stem) for path in folder.glob("*.json")), default=0) + 1
    head = {"finished": now(), "recipe": hash_recipe(cast.recipe), "code": code_of_all()}
    write_json(folder / f"{number:06d}.json", {**head, **summary.to_json()})


def history(settings: Settings, name: str | None = None) -> list[dict[str, Any]]:
    """Recorded casts, oldest first."""
    casts = [read_json(path) for path in sorted((settings.home / "casts").glob("*.json"))]
    return [cast for cast in casts if name in {None, cast["name"]}]


def status(settings: Settings) -> dict[str, Any]:
    """The casts that run now, the last one of each model, and its champion as the registry has it."""
    locks = sorted((settings.home / "locks").glob("*.lock")) if settings.home.exists() else []
    last = {cast["name"]: cast for cast in history(settings)}
    return {
        "home": str(settings.home),
        "tracking": settings.tracking_uri,
        "running": {lock.stem: read_holder(lock) for lock in locks if is_held(lock)},
        "models": {
            name: {
                "finished": cast["finished"],
                "accepted": cast["accepted"],
                "champion": _champion_now(settings, name),
            }
            for name, cast in last.items()
        },
    }


def _champion_now(settings: Settings, name: str) -> str:
    champion = read_champion(settings, name)  # people move it between casts
    return "unknown" if champion is UNKNOWN else str(champion or "")
