"""A cast: one recipe in its project, and the lock on its model's name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import recaster
from recaster.core.errors import RecipeError
from recaster.core.locks import hold_lock
from recaster.core.settings import Settings, ensure_home, find_settings
from recaster.recipe.load import load_recipe
from recaster.recipe.schema import Recipe

if TYPE_CHECKING:
    from recaster.workloads.protocol import Workload

_WORKLOADS = Path(recaster.__file__).parent / "workloads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """One run of one recipe."""

    recipe: Recipe
    path: Path
    overrides: tuple[str, ...]
    settings: Settings

    @property
    def workload_module(self) -> str:
        """Where the recipe's workload is found."""
        return f"recaster.workloads.{self.recipe.workload.replace('-', '_')}"

    @property
    def workload(self) -> Workload:
        """The recipe's workload; imports torch."""
        workload: Workload = importlib.import_module(self.workload_module).WORKLOAD
        return workload


def open_cast(path: Path, overrides: Sequence[str] = ()) -> Cast:
    """Read the recipe and find its project.

    Raises:
        RecipeError: the recipe, an override, or its workload is wrong.
    """
    recipe = load_recipe(path, overrides)
    known = sorted(file.stem.replace("_", "-") for file in _WORKLOADS.glob("[a-z]*.py"))
    known.remove("protocol")
    if recipe.workload not in known:
        raise RecipeError(
            "The recipe names an unknown workload.",
            where=f"{path}, key workload",
            value=recipe.workload,
            repair=f"use one of: {', '.join(known)}",
        )
    return Cast(recipe=recipe, path=path, overrides=tuple(overrides), settings=find_settings(path))


@contextmanager
def hold_model(cast: Cast, *, wait_seconds: float, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the model's name for the body, so that two casts of it never interleave.

    Raises:
        LockHeldError: another cast held it for all of `wait_seconds`.
    """
    ensure_home(cast.settings)
    lock = cast.settings.home / "locks" / f"{cast.recipe.name}.lock"
    with hold_lock(lock, name=f"model {cast.recipe.name}", wait_seconds=wait_seconds, on_wait=on_wait):
        yield


def import_libraries(cast: Cast) -> None:
    """Import what most casts come to need, in seconds in which there is nothing else to do.

    Each step imports its own otherwise, when it comes to it: one that is found finished needs none.
    """
    from recaster.data.contract import import_expectations

    import_expectations()
    importlib.import_module(cast.workload_module)  # torch


def check_services(cast: Cast) -> None:
    """Fail early when the home folder or MLflow cannot be used.

    Raises:
        StorageError, ServiceError: with the repair.
    """
    from recaster.tracking.runs import open_tracking

    ensure_home(cast.settings)
    open_tracking(cast.settings)
