"""Cutting a model that is a chain of modules into stages of about equal size.

embed | blocks.0 | blocks.1 | blocks.2 | head   →   [embed, blocks.0]  [blocks.1]  [blocks.2, head]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.distributed.strategies.protocol import Chained, LayerShared
from recaster.distributed.strategies.share import autocast


class Part(nn.Module):
    """Some links of a model's chain; each parameter keeps its name in the whole model."""

    def __init__(self, model: nn.Module, names: Sequence[str], *, precision: str) -> None:
        super().__init__()
        self._precision, self._names = precision, list(names)
        for name in names:
            _attach(self, name.split("."), model.get_submodule(name))
        if isinstance(model, LayerShared):
            self.tensor_plan = model.tensor_plan

    def chain(self) -> list[str]:
        """The names of the links, in order."""
        return self._names

    def forward(self, hidden: Tensor) -> Tensor:
        """The links' functions one after the other."""
        with autocast(hidden.device, self._precision):
            for name in self._names:
                hidden = self.get_submodule(name)(hidden)
        return hidden


def _attach(root: nn.Module, path: Sequence[str], module: nn.Module) -> None:
    for name in path[:-1]:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    root.add_module(path[-1], module)


def cut_chain(model: nn.Module, stages: int) -> list[list[str]]:
    """The names of the links in each of `stages` stages, so that the largest has fewest parameters.

    Raises:
        RecipeError: the model is no chain, or has too few links with parameters.
        ValueError: the model's chain leaves out some of its parameters.
    """
    if not isinstance(model, Chained):
        raise RecipeError(
            "This model cannot be cut into stages.",
            where="distributed.strategy",
            value=type(model).__name__,
            repair="use strategy ddp or fsdp, or give the model a `chain`",
        )
    links = model.chain()
    covered = {f"{link}.{name}" for link in links for name, _ in model.get_submodule(link).named_parameters()}
    if missing := {name for name, _ in model.named_parameters()} - covered:
        raise ValueError(f"{type(model).__name__}.chain leaves out {sorted(missing)}")
    units = _group_links(model, links)
    if len(units) < stages:
        raise RecipeError(
            "The model has fewer links than there are stages.",
            where="distributed.mesh.pipe times distributed.stages_per_rank",
            value=f"{stages} stages, {len(units)} links with parameters",
            repair="use fewer pipe ranks or stages, or a deeper model",
        )
    sizes = [_count(model, unit) for unit in units]
    bounds = [0, *_best_cuts(sizes, stages), len(units)]
    return [[name for unit in units[start:end] for name in unit] for start, end in pairwise(bounds)]


def _group_links(model: nn.Module, links: Sequence[str]) -> list[list[str]]:
    """Links without parameters go with the one before: a stage needs something to learn."""
    units: list[list[str]] = []
    for link in links:
        if not units or (_count(model, [link]) and _count(model, units[-1])):
            units.append([])
        units[-1].append(link)
    return units


def _count(model: nn.Module, names: Sequence[str]) -> int:
    return sum(value.numel() for name in names for value in model.get_submodule(name).parameters())


def _best_cuts(sizes: Sequence[int], stages: int) -> list[int]:
    """Where to cut `sizes` into `stages` runs with the smallest largest sum (dynamic programming)."""
    total = [0, *accumulate(sizes)]
    best: dict[int, tuple[int, list[int]]] = {end: (total[end], []) for end in range(1, len(sizes) + 1)}
    for stage in range(2, stages + 1):
        best = {
            end: min(
                (max(best[cut][0], total[end] - total[cut]), [*best[cut][1], cut])
                for cut in range(stage - 1, end)
            )
            for end in range(stage, len(sizes) + 1)
        }
    return best[len(sizes)][1]
