"""Search: find the hyper-parameters of a recipe that its validation split likes best.

snapshot ─► validate ─► fetch base ─► prepare ─► trial, trial, …
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from recaster import pipeline
from recaster.core.settings import quiet_dependencies
from tasks.fetch_base import fetch_base
from tasks.log_progress import PrefectReporter
from tasks.prepare_data import prepare_data
from tasks.search_trial import search_trial
from tasks.snapshot_data import snapshot_data
from tasks.validate_data import validate_data


@flow(name="search", persist_result=False, validate_parameters=False)
def search_hyperparameters(
    recipe: str, overrides: list[str] | None = None, wait_seconds: float = 3600.0
) -> dict[str, Any]:
    """Run the search of the recipe at path `recipe`. A rerun finds finished trials and goes on from there.

    Returns:
        The summary, with the best trial.
    """
    quiet_dependencies()
    cast = pipeline.open_cast(Path(recipe), overrides or [])
    reporter = PrefectReporter(cast.recipe.name)
    with pipeline.hold_model(cast, wait_seconds=wait_seconds, on_wait=reporter.say):
        pipeline.check_services(cast)
        raw = snapshot_data(cast, reporter)
        checked = validate_data(cast, raw)
        fetch_base(cast, reporter)
        prepared = prepare_data(cast, raw, checked, reporter)
        summary = pipeline.search_trials(cast, prepared, raw, reporter, run_trial=search_trial)
    create_markdown_artifact(summary.to_markdown(), key=f"{cast.recipe.name}-search")
    return summary.to_json()
