"""Evaluate a model on the held-out split."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from recaster import pipeline
from recaster.core.progress import Reporter
from recaster.core.steps import StepResult
from recaster.pipeline import Cast
from tasks.log_step import logged
from tasks.retry_policy import RETRY_DELAYS_SECONDS, worth_retrying


@task(
    cache_policy=NO_CACHE,  # the step store finds finished work
    persist_result=False,
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=worth_retrying,
)
@logged
def evaluate_model(
    cast: Cast,
    prepared: StepResult,
    trained: StepResult,
    reporter: Reporter,
) -> StepResult:
    """Export, measure on the held-out split, version the artifact; the metrics become a table of the run."""
    result = pipeline.evaluate(cast, prepared, trained)
    pipeline.version_artifact(cast, trained, reporter)
    rows = [{"metric": name, **entry} for name, entry in result.facts["metrics"].items()]
    create_table_artifact(rows, key=f"{cast.recipe.name}-metrics")
    return result
