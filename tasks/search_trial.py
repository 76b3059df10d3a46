"""Train one trial of a search."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from recaster import pipeline
from recaster.pipeline import TrialJob, TrialOutcome
from tasks.retry_policy import RETRY_DELAYS_SECONDS, worth_retrying


def _name_run() -> str:
    parameters: dict[str, Any] = task_run.parameters
    return f"trial-{parameters['job'].number}"


@task(
    task_run_name=_name_run,
    cache_policy=NO_CACHE,  # the step store finds finished work
    persist_result=False,
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=worth_retrying,
)
def search_trial(job: TrialJob) -> TrialOutcome:
    """Train over all ranks; a pruned or diverged trial is an outcome, not a failed task."""
    return pipeline.run_trial(job)
