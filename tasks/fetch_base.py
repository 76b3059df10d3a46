"""Fetch the base model: the task that reaches out for open weights."""

from __future__ import annotations

from prefect import task
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
def fetch_base(cast: Cast, reporter: Reporter) -> StepResult | None:
    """The recipe's open model, its licence checked first; nothing for fresh weights."""
    return pipeline.fetch_cast_base(cast, reporter)
