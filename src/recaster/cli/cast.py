"""Running one cast from the command: through Prefect, and on without it when its server dies."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from recaster.cli.services import answers, await_prefect, begin_prefect, ensure_prefect
from recaster.core.errors import RecasterError
from recaster.core.progress import Reporter
from recaster.core.settings import ensure_home
from recaster.pipeline import Cast


def run_cast(cast: Cast, *, wait_seconds: float, reporter: Reporter) -> dict[str, Any]:
    """Run the flow in this process and return the summary.

    Raises:
        RecasterError: raised by a step.
        ServiceError: Prefect or MLflow does not answer before the cast begins.
    """
    from recaster import pipeline

    def flow() -> Callable[..., dict[str, Any]]:
        from flows.recast import recast

        return recast

    return _run_flow(cast, flow, pipeline.run, wait_seconds=wait_seconds, reporter=reporter)


def run_search(cast: Cast, *, wait_seconds: float, reporter: Reporter) -> dict[str, Any]:
    """Run the search's flow in this process and return the summary.

    Raises:
        RecasterError: raised by a step.
        ServiceError: Prefect or MLflow does not answer before the search begins.
    """
    from recaster import pipeline

    def flow() -> Callable[..., dict[str, Any]]:
        from flows.search_hyperparameters import search_hyperparameters

        return search_hyperparameters

    return _run_flow(cast, flow, pipeline.search, wait_seconds=wait_seconds, reporter=reporter)


class _Summary(Protocol):
    def to_json(self) -> dict[str, Any]: ...


def _run_flow(
    cast: Cast,
    import_flow: Callable[[], Callable[..., dict[str, Any]]],
    run_without: Callable[[Cast, Reporter], _Summary],
    *,
    wait_seconds: float,
    reporter: Reporter,
) -> dict[str, Any]:
    from recaster import pipeline

    ensure_home(cast.settings)
    # A server that was not there takes seconds to come up; what can be done meanwhile is done meanwhile.
    api_url, starting = begin_prefect(cast.settings)
    os.environ["PREFECT_API_URL"] = api_url
    os.environ.setdefault("PREFECT_HOME", str(cast.settings.home / "prefect"))
    _keep_terminal_clean()
    with pipeline.hold_model(cast, wait_seconds=wait_seconds, on_wait=reporter.say):
        pipeline.check_services(cast)
    flow = import_flow()
    if starting:
        pipeline.import_libraries(cast)
    await_prefect(cast.settings, api_url)
    import httpx
    from prefect.exceptions import PrefectException

    try:
        result = flow(str(cast.path), list(cast.overrides), wait_seconds)
    except RecasterError:
        raise
    except (httpx.HTTPError, PrefectException, OSError, RuntimeError) as error:
        if answers(f"{api_url}/health"):
            raise  # not Prefect's trouble
        reporter.say(f"Prefect stopped answering at {api_url} ({type(error).__name__}); going on without it")
        with pipeline.hold_model(cast, wait_seconds=wait_seconds, on_wait=reporter.say):
            result = run_without(cast, reporter).to_json()
    return result


def _keep_terminal_clean() -> None:
    """Let Prefect's log lines go to the run's page alone; the terminal has the cast's own."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # A server that is gone takes no lines: the cast says so once, and not for each batch that is lost.
    logging.raiseExceptions = False


def schedule_cast(cast: Cast) -> dict[str, str]:
    """Create or update the deployment that repeats this recipe by its cron line.

    Raises:
        RecipeError: the recipe has no schedule.
    """
    from recaster.core.errors import RecipeError

    plan = cast.recipe.schedule
    if plan is None:
        raise RecipeError(
            "The recipe has no schedule.", where=str(cast.path), repair='add schedule: {cron: "0 3 * * *"}'
        )
    os.environ["PREFECT_API_URL"] = ensure_prefect(cast.settings)
    os.environ.setdefault("PREFECT_HOME", str(cast.settings.home / "prefect"))
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import RunnerDeployment

    from recaster.cli.services import POOL, ensure_worker

    ensure_worker(cast.settings, os.environ["PREFECT_API_URL"])
    recipe = cast.path.resolve()
    deployment = RunnerDeployment(
        name=cast.recipe.name,
        flow_name="recast",
        entrypoint="flows.recast.recast",
        parameters={"recipe": str(recipe), "overrides": list(cast.overrides)},
        schedules=[DeploymentScheduleCreate(schedule=CronSchedule(cron=plan.cron, timezone=plan.timezone))],
        work_pool_name=POOL,
        job_variables={"working_dir": str(Path(cast.settings.project))},
    )
    identity = deployment.apply()
    return {"deployment": f"recast/{cast.recipe.name}", "id": str(identity), "cron": plan.cron}
