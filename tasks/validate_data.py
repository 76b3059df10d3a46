"""Validate the data set against its contract."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from recaster import pipeline
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
def validate_data(
    cast: Cast,
    snapshot: StepResult,
) -> StepResult:
    """Check the contract; the report becomes an artifact of the run."""
    result = pipeline.validate(cast, snapshot)
    report = (result.path / "report.md").read_text()
    create_markdown_artifact(report, key=f"{cast.recipe.name}-data-contract")
    return result
