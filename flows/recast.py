"""Recast: turn a recipe and its data into a registered model, and promote it when the gate says yes.

snapshot ─► validate ─► fetch base ─► prepare ─► train ─► evaluate ─► register ─► promote
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from recaster import pipeline
from recaster.core.settings import quiet_dependencies
from tasks.evaluate_model import evaluate_model
from tasks.fetch_base import fetch_base
from tasks.log_progress import PrefectReporter
from tasks.prepare_data import prepare_data
from tasks.promote_model import promote_model
from tasks.register_model import register_model
from tasks.snapshot_data import snapshot_data
from tasks.train_model import train_model
from tasks.validate_data import validate_data


def _name_run() -> str:
    return f"{Path(flow_run.parameters['recipe']).stem}-{flow_run.id[:8]}"


@flow(name="recast", flow_run_name=_name_run, persist_result=False, validate_parameters=False)
def recast(recipe: str, overrides: list[str] | None = None, wait_seconds: float = 3600.0) -> dict[str, Any]:
    """Cast the recipe at path `recipe` once. A rerun finds finished steps and goes on from there.

    Returns:
        The summary. A refused challenger is a result: the flow ends green, and the verdict says why.
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
        trained = train_model(cast, prepared, raw, reporter)
        evaluated = evaluate_model(cast, prepared, trained, reporter)
        registered = register_model(cast, raw, checked, prepared, trained, evaluated)
        promoted = promote_model(cast, registered, prepared, evaluated)
        summary = pipeline.summarize(cast, [raw, checked, prepared, trained, evaluated, registered, promoted])
    get_run_logger().info("%s", summary.to_sentence())
    create_markdown_artifact(summary.to_markdown(), key=f"{cast.recipe.name}-cast")
    return summary.to_json()
