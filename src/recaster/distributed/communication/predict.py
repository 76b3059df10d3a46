"""How long a step would take under each scheme, from the link, the backward pass and the cost of coding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from recaster.distributed.communication.build import build_scheme
from recaster.distributed.communication.exchange import Exchange, Gradients, Layout
from recaster.distributed.communication.link import Link, slowest_seconds
from recaster.distributed.communication.packed import pack, unpack

PLAIN = "allreduce"
_LEVELS = {
    "exact": (PLAIN,),
    "rounded": ("bf16", "fp16"),
    "compressed": ("powersgd", "topk"),
    "local": ("local-sgd", "diloco"),
}
"""What each level of the accuracy budget adds to the last.

Parameter servers are in none: they send what all-reduce does.
"""
_STEPS_TO_SAME_LOSS = {"powersgd": 1.25, "topk": 1.5, "local-sgd": 1.5, "diloco": 1.5}
"""How many steps a lossy scheme needs for one of all-reduce's; of the order that
benchmarks/results/communication.json shows, and another on another task."""
_BACKWARD_SHARE = 2 / 3
"""Of a forward and backward pass: backward costs about two forwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One scheme's expected step."""

    scheme: str
    seconds: float
    """Of forward, backward and exchange; in the mean over a cycle."""
    steps_to_same_loss: float
    """For one step of plain all-reduce."""
    cycle: int = 1
    """Steps after which the exchange repeats itself."""
    settles_after: int = 2
    """The first steps, which are not like the later ones."""

    @property
    def worth_seconds(self) -> float:
        """Time for what one plain step gains."""
        return self.seconds * self.steps_to_same_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What predictions are made from."""

    link: Link
    pass_seconds: float
    """Forward and backward, nothing sent."""
    gradient_bytes: int
    buckets: int
    """In which plain gradients are sent while backward goes on."""


def schemes_within(budget: str) -> list[str]:
    """The schemes that an accuracy budget allows, plain first."""
    levels = list(_LEVELS)
    return [name for level in levels[: levels.index(budget) + 1] for name in _LEVELS[level]]


def predict_steps(
    budget: str,
    section: Mapping[str, Any],
    *,
    costs: Costs,
    parameters: Sequence[Tensor],
    group: dist.ProcessGroup,
) -> list[Prediction]:
    """A prediction for each scheme within `budget`; measures what their coding costs here.

    All ranks of `group` must call it together, and get the same.
    """
    coding = _Coding(section, parameters, group)
    predictions = []
    for name in schemes_within(budget):
        options = section.get(name.replace("-", "_"), {})
        exchange = _exchange_seconds(name, options, costs, parameters) + coding.seconds(name)
        cycle, settles = options.get("every_steps", 1), 2
        settles = max(settles, options.get("start_step", 0), options.get("warmup_steps", 0))
        predictions.append(
            Prediction(
                scheme=name,
                seconds=costs.pass_seconds + exchange / cycle,
                steps_to_same_loss=_STEPS_TO_SAME_LOSS.get(name, 1.0),
                cycle=cycle,
                settles_after=settles,
            )
        )
    return predictions


def _exchange_seconds(
    name: str, options: Mapping[str, Any], costs: Costs, parameters: Sequence[Tensor]
) -> float:
    link, size = costs.link, costs.gradient_bytes
    if name == "topk":
        return link.all_gather_seconds(2 * size * options["fraction"])
    if name == "powersgd":
        plain, thin = powersgd_elements(parameters, rank=options["rank"])
        return 2 * link.latency_seconds + link.all_reduce_seconds(4 * (plain + thin))
    if name in ("local-sgd", "diloco"):
        return link.all_reduce_seconds(size)
    seconds = link.all_reduce_seconds(size if name == PLAIN else size / 2)
    # All but the last bucket can be on its way during backward.
    hidden = min(_BACKWARD_SHARE * costs.pass_seconds, seconds) * (1 - 1 / costs.buckets)
    return seconds - hidden


def powersgd_elements(parameters: Sequence[Tensor], *, rank: int) -> tuple[int, int]:
    """Elements that PowerSGD sends as they are, and those of the thin matrices (torch's own rule)."""
    plain, thin = 0, 0
    for parameter in parameters:
        rows = parameter.shape[0] if parameter.dim() else 1
        columns = parameter.numel() // max(1, rows)
        columns_kept = min(rows, columns, rank)
        if (rows + columns) * columns_kept * 2 < rows * columns:
            thin += (rows + columns) * columns_kept
        else:
            plain += parameter.numel()
    return plain, thin


class _Coding:
    """What schemes compute beside sending: each exchanges gradients of the real size with itself alone."""

    def __init__(
        self, section: Mapping[str, Any], parameters: Sequence[Tensor], group: dist.ProcessGroup
    ) -> None:
        self._parameters, self._group = parameters, group
        self._section = {**section, "powersgd": {**section["powersgd"], "start_step": 1}}
        self._device = parameters[0].device
        self._alone, _ = dist.new_subgroups(group_size=1)

    def seconds(self, name: str) -> float:
        if name == PLAIN:
            return 0.0
        work: Callable[[], object]
        if name in ("local-sgd", "diloco"):
            rounds = 1 if name == "local-sgd" else 3  # DiLoCo packs, subtracts, and steps its outer optimizer
            work = lambda: [unpack(pack(self._parameters), self._parameters) for _ in range(rounds)]  # noqa: E731
        else:
            scheme: Exchange = build_scheme(name, self._section, group=self._alone, last_step=1)  # type: ignore[assignment]
            source = torch.Generator(self._device).manual_seed(0)
            elements = sum(parameter.numel() for parameter in self._parameters)
            flat = torch.randn(elements, device=self._device, generator=source)
            gradients = Gradients(flat, Layout(self._parameters, self._parameters))
            work = lambda: scheme.exchange(gradients).wait()  # noqa: E731
        return slowest_seconds(work, group=self._group, device=self._device)


def count_buckets(gradient_bytes: int, *, bucket_mib: int) -> int:
    """Buckets in which DistributedDataParallel sends gradients."""
    return max(1, math.ceil(gradient_bytes / (bucket_mib * 2**20)))
