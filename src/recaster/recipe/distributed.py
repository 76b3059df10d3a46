"""The recipe's `distributed` section: the processes that train together."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from recaster.recipe.section import Section


class MeshSection(Section):
    """Ranks along each dimension of the mesh; their product is `ranks`."""

    data: int = Field(default=1, ge=1, le=64)
    """Copies of the model, each with its own part of a batch."""
    shard: int = Field(default=1, ge=1, le=64)
    """Ranks that keep a part of each parameter, and have their own part of a batch."""
    pipe: int = Field(default=1, ge=1, le=64)
    """Ranks that run the model's layers one after the other."""
    tensor: int = Field(default=1, ge=1, le=64)
    """Ranks that share the work of each layer."""


_OWN_DIMENSION = {"single": "data", "ddp": "data", "fsdp": "shard", "tensor": "tensor", "pipeline": "pipe"}
"""The dimension that all ranks belong to when the recipe names no mesh."""
_DIMENSIONS = {
    "single": (),
    "ddp": ("data",),
    "fsdp": ("data", "shard"),
    "tensor": ("data", "shard", "tensor"),
    "pipeline": ("data", "shard", "pipe", "tensor"),
}
"""The dimensions that a strategy can have."""
_HOW_STARTED = {
    "max_restarts",
    "min_ranks",
    "hang_timeout_seconds",
    "launcher",
    "nodes",
    "rendezvous",
    "ray_address",
}


class DistributedSection(Section):
    """The processes that train together."""

    strategy: Literal["single", "ddp", "fsdp", "tensor", "pipeline"]
    """How the model and its batches are divided over the ranks."""
    ranks: int = Field(ge=1, le=64)
    """Processes that train together."""
    mesh: MeshSection = MeshSection()
    """Without it all ranks are the strategy's own dimension: copies, shards, parts of layers or stages."""
    bucket_mib: int = Field(default=25, ge=1, le=4096)
    """Gradients of copies are reduced in buckets of this size; used by ddp, and pipeline's copies."""
    stages_per_rank: int = Field(default=1, ge=1, le=16)
    """Used by pipeline: 1 runs the 1F1B schedule, more the interleaved one."""
    threads_per_rank: int = Field(default=1, ge=1)
    """CPU threads of one rank; part of the result, since another count sums in another order."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: one GPU a rank where there are enough, else CPU."""
    max_restarts: int = Field(default=3, ge=0)
    """How often the launcher replaces lost ranks before it goes on with fewer, or gives up."""
    min_ranks: int = Field(ge=1, le=64)
    """With how few ranks training goes on when lost ones cannot be replaced; without it, only with all."""
    hang_timeout_seconds: float = Field(default=40.0, ge=5, le=3600)
    """Ranks without progress for so long are killed and started again; a start, a first compiled step
    and a checkpoint may take ten times as long."""
    launcher: Literal["local", "torchrun", "ray"] = "local"
    """Who starts the ranks: this host, torch's elastic agent on each of `nodes` hosts, a Ray cluster."""
    nodes: int = Field(default=1, ge=1, le=64)
    """Hosts that have `ranks` in equal parts; used by torchrun and ray."""
    rendezvous: str | None = Field(default=None, pattern=r"^[^:\s]+:[0-9]{1,5}$")
    """HOST:PORT of the first host, where the hosts of torchrun meet."""
    ray_address: str = Field(default="auto", min_length=1)
    """HOST:PORT of the Ray cluster's head; auto: the one that this host belongs to."""

    @model_validator(mode="before")
    @classmethod
    def _fill_min_ranks(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("min_ranks") is None:
            return {**value, "min_ranks": value.get("ranks", 1)}
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_mesh(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("mesh") is None and value.get("strategy") in _OWN_DIMENSION:
            return {**value, "mesh": {_OWN_DIMENSION[value["strategy"]]: value.get("ranks", 1)}}
        return value

    @model_validator(mode="after")
    def _mesh_fits(self) -> DistributedSection:
        if self.strategy == "single" and self.ranks != 1:
            raise ValueError(f"strategy single has one rank, not {self.ranks}; use ddp")
        sizes = self.mesh.model_dump()
        own = _OWN_DIMENSION[self.strategy]
        for name, size in sizes.items():
            if size > 1 and name not in _DIMENSIONS[self.strategy]:
                known = ", ".join(_DIMENSIONS[self.strategy])
                fits = next(key for key, names in _DIMENSIONS.items() if name in names)
                raise ValueError(
                    f"strategy {self.strategy} has no mesh dimension {name} (it has: {known}); use {fits}"
                )
        if self.strategy in ("tensor", "pipeline") and sizes[own] == 1:
            raise ValueError(f"strategy {self.strategy} needs mesh.{own} of 2 or more; or use ddp")
        if (product := math.prod(sizes.values())) != self.ranks:
            told = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "of one place"
            raise ValueError(f"a mesh {told} needs ranks: {product}, not {self.ranks}")
        if self.stages_per_rank > 1 and self.strategy != "pipeline":
            raise ValueError("stages_per_rank belongs to strategy pipeline; remove it")
        return self

    @model_validator(mode="after")
    def _bounds_fit(self) -> DistributedSection:
        copy = self.mesh.pipe * self.mesh.tensor
        if self.min_ranks > self.ranks or self.min_ranks % copy:
            fits = ", ".join(str(count) for count in range(copy, self.ranks + 1, copy))
            raise ValueError(f"min_ranks {self.min_ranks} does not fit ranks and mesh; possible: {fits}")
        if self.launcher == "local" and self.nodes > 1:
            raise ValueError(f"launcher local has one node, not {self.nodes}; use torchrun or ray")
        if self.launcher == "ray" and self.min_ranks < self.ranks and copy > 1:
            raise ValueError(
                "Ray leaves out single ranks, which a mesh with pipe or tensor cannot lose; remove min_ranks"
            )
        per_node = self.ranks // self.nodes
        if self.launcher == "torchrun" and (self.ranks % self.nodes or self.min_ranks % per_node):
            raise ValueError(
                f"ranks {self.ranks} and min_ranks {self.min_ranks} must be multiples of the ranks of one of "
                f"{self.nodes} nodes"
            )
        if (self.launcher == "torchrun") != (self.rendezvous is not None):
            raise ValueError(
                "launcher torchrun needs rendezvous, HOST:PORT of the first host; no other has it"
            )
        return self

    def of_the_result(self) -> dict[str, Any]:
        """The decisions that the weights depend on; how ranks are started and replaced is left out."""
        return self.model_dump(exclude=_HOW_STARTED)

    @property
    def data_ranks(self) -> int:
        """Into how many parts a batch is split."""
        return self.mesh.data * self.mesh.shard
