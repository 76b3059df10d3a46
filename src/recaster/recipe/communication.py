"""The recipe's `communication` section: how copies of a model agree."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from recaster.recipe.section import Section


class PowerSgdOptions(Section):
    """Used by powersgd: each gradient matrix travels as two thin ones."""

    rank: int = Field(default=4, ge=1, le=256)
    """Columns of the thin matrices: more is nearer to the gradient, and dearer to send."""
    start_step: int = Field(default=3, ge=1)
    """The first step that is compressed; those before are plain."""
    warm_start: bool = True
    """Begin each step from the factors of the one before."""
    error_feedback: bool = True
    """Add what was lost in a step to the next step's gradient."""


class TopKOptions(Section):
    """Used by topk: only the largest entries of the gradient travel."""

    fraction: float = Field(default=0.01, gt=0, le=0.5)
    """Share of the entries that are sent; each costs twice its own bytes, since its place travels too."""
    error_feedback: bool = True
    """Add what was not sent in a step to the next step's gradient."""


class LocalSgdOptions(Section):
    """Used by local-sgd: ranks train on their own and average their weights now and then."""

    every_steps: int = Field(default=8, ge=1)
    """Steps between two averages."""
    warmup_steps: int = Field(default=0, ge=0)
    """Plain steps at the start."""


class DiLoCoOptions(LocalSgdOptions):
    """Used by diloco: local SGD with an outer optimizer; the paper's outer settings."""

    outer_learning_rate: float = Field(default=0.7, gt=0, le=2)
    """1 without momentum is local SGD."""
    outer_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Nesterov momentum of the outer step."""


class ParameterServerOptions(Section):
    """Used by parameter-server."""

    placement: Literal["sharded", "central"] = "sharded"
    """sharded: each rank serves its share, so that no link carries more than in an all-reduce; central: the
    first rank serves all."""
    staleness: int | None = Field(default=None, ge=0)
    """None: synchronous, all ranks step together. A number: the servers update as gradients come in, and a
    rank goes on as long as no other is more than so many steps behind."""


class AutoOptions(Section):
    """Used by auto: the scheme is chosen by measurement at the start of a run."""

    accuracy_budget: Literal["exact", "rounded", "compressed", "local"] = "rounded"
    """What it may choose, each level with those before: plain all-reduce; 16 bits on the wire; powersgd and
    topk; local-sgd and diloco."""
    min_gain: float = Field(default=0.1, ge=0, lt=1)
    """Share of the plain step's time that a scheme must save to be chosen."""


_OPTIONS = {
    "powersgd": "powersgd",
    "topk": "topk",
    "local-sgd": "local_sgd",
    "diloco": "diloco",
    "parameter-server": "parameter_server",
    "auto": "auto",
}
"""The options that belong to a scheme; auto chooses among schemes, with their options."""


class CommunicationSection(Section):
    """How copies of a model (strategy ddp) agree. A scheme's name alone stands for its defaults."""

    scheme: Literal[
        "allreduce", "fp16", "bf16", "powersgd", "topk", "local-sgd", "diloco", "parameter-server", "auto"
    ] = "allreduce"
    """What the copies send each other, how small and how often; auto measures and chooses."""
    powersgd: PowerSgdOptions = PowerSgdOptions()
    topk: TopKOptions = TopKOptions()
    local_sgd: LocalSgdOptions = LocalSgdOptions()
    diloco: DiLoCoOptions = DiLoCoOptions()
    parameter_server: ParameterServerOptions = ParameterServerOptions()
    auto: AutoOptions = AutoOptions()

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"scheme": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _options_fit(self) -> CommunicationSection:
        for scheme, key in _OPTIONS.items():
            chosen = {scheme} if scheme in ("auto", "parameter-server") else {scheme, "auto"}
            if getattr(self, key) != type(getattr(self, key))() and self.scheme not in chosen:
                raise ValueError(f"{key} belongs to scheme {scheme}, not {self.scheme}; remove it")
        return self
