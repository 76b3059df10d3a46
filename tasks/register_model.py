"""Register a model version in MLflow."""

from __future__ import annotations

from prefect import task
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
def register_model(  # noqa: PLR0917 - one reference from each step
    cast: Cast,
    snapshot: StepResult,
    validation: StepResult,
    prepared: StepResult,
    trained: StepResult,
    evaluation: StepResult,
) -> StepResult:
    """Log results and create one model version."""
    return pipeline.register(cast, snapshot, validation, prepared, trained, evaluation)
