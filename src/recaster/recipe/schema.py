"""The recipe's schema: the whole truth of a cast. Defaults live here and nowhere else.

Fields without a default are decisions that every recipe states. Units are in names or under the field.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

METRICS = {
    "accuracy": "higher",
    "macro_f1": "higher",
    "negative_log_likelihood": "lower",
    "calibration_error": "lower",
    "predictive_entropy": "lower",
}
"""Every metric that a gate can name, and which direction is better."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return name


Metric = Annotated[str, AfterValidator(_known_metric)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class ImageShape(_Section):
    """What every picture of the data set must look like."""

    height: int = Field(ge=4, le=4096)
    """Pixels."""
    width: int = Field(ge=4, le=4096)
    """Pixels."""
    channels: Literal[1, 3]
    """1: grey; 3: red, green, blue."""
    minimum: float
    """Smallest legal pixel value."""
    maximum: float
    """Largest legal pixel value; pixels are scaled so that minimum..maximum becomes 0..1."""

    @model_validator(mode="after")
    def _ordered(self) -> ImageShape:
        if self.minimum >= self.maximum:
            raise ValueError(f"minimum ({self.minimum}) must be below maximum ({self.maximum})")
        return self


class DataSection(_Section):
    """Which data, under which licence, with which labels."""

    source: str = Field(min_length=1)
    """`builtin:digits`, or a JSON lines file, a CSV file or an image folder, relative to the project."""
    licence: str = Field(min_length=1)
    """Of the data; it stands on the model's card."""
    labels: list[str] = Field(min_length=2)
    """Every legal label, in the order of the model's outputs."""
    image: ImageShape
    """What every picture must look like; another shape is a broken record."""

    @model_validator(mode="after")
    def _distinct(self) -> DataSection:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels repeat: {self.labels}")
        return self


class ContractSection(_Section):
    """When a data set is refused; below these bounds, bad rows go to quarantine."""

    max_quarantined_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of records that may break the contract; above it the data set is refused."""
    min_rows: int = Field(default=100, ge=1)
    """Good records of the whole set."""
    min_rows_per_label: int = Field(default=10, ge=1)
    """Fewer would leave a split without the label."""


class SplitSection(_Section):
    """How records are divided; duplicates of one picture always stay on one side."""

    seed: Seed
    """Another seed divides the records otherwise."""
    validation: Fraction
    """Share of the good records that training is watched on."""
    test: Fraction
    """Share of the good records that are held out for the evaluation and the gate."""
    near_duplicate_distance: float = Field(default=0.06, ge=0, le=1)
    """Root mean square pixel difference (fraction of the range) under which two pictures are one."""

    @model_validator(mode="after")
    def _room_for_training(self) -> SplitSection:
        if self.validation + self.test >= 0.9:
            raise ValueError("validation and test together leave less than a tenth for training")
        return self


class ModelSection(_Section):
    """Where the weights start."""

    base: Literal["scratch:small-cnn"]
    """`scratch:` begins with fresh weights of that architecture."""
    width: int = Field(default=32, ge=4, le=512, multiple_of=4)
    """Channels of the first convolution; the second has twice as many."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the last layer's inputs that are left out in each training pass."""


class Optimizer(_Section):
    """Update rule."""

    name: Literal["adamw", "sgd"]
    """AdamW (Loshchilov and Hutter 2019), or gradient descent with momentum."""
    learning_rate: float = Field(gt=0)
    """Peak of the schedule."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled from the gradient with adamw, added to it with sgd."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Used by sgd; adamw keeps its betas of 0.9 and 0.999."""


class Schedule(_Section):
    """Learning rate over the run."""

    name: Literal["cosine", "constant"] = "cosine"
    """After the warm-up: half a cosine down to zero, or level."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises linearly from zero."""


class Augmentation(_Section):
    """Random changes to training pictures."""

    shift_pixels: int = Field(default=0, ge=0, le=64)
    """Largest shift in each direction; the border is filled with the smallest pixel value."""


class TrainSection(_Section):
    """The optimisation."""

    seed: Seed
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Samples in one optimizer step, over all ranks."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Samples in one forward and backward pass of one rank; the gradients of a step's passes add up.
    Without it a rank takes its share of a step in one pass."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16: computed in bfloat16 where that is safe; weights and the optimizer stay in float32."""
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    checkpoint_every_steps: int = Field(default=50, ge=1)
    keep_checkpoints: int = Field(default=3, ge=2)
    """At least two, so that a damaged one has one before it."""
    record_every_steps: int = Field(default=1, ge=1)
    """Steps between two lines of the journal."""


class MeshSection(_Section):
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


class DistributedSection(_Section):
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
    """How often the launcher replaces lost ranks before it gives up."""

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

    @property
    def data_ranks(self) -> int:
        """Into how many parts a batch is split."""
        return self.mesh.data * self.mesh.shard


class EvaluateSection(_Section):
    """Metrics on the held-out split."""

    seed: Seed = 0
    """Of the resampling."""
    bootstrap_samples: int = Field(default=1000, ge=100)
    """Resamplings of the held-out records for each interval (accuracy has Wilson's instead)."""
    confidence: Fraction = 0.95
    """Coverage of each interval."""
    calibration_bins: int = Field(default=15, ge=2)
    """Equal widths of confidence over which the calibration error is summed."""


class Bar(_Section):
    """A bound that a metric's point estimate must keep."""

    metric: Metric
    """One of those below."""
    min: float | None = None
    """The least that is good enough, in the metric's unit."""
    max: float | None = None
    """The most that is good enough."""

    @model_validator(mode="after")
    def _bounded(self) -> Bar:
        if self.min is None and self.max is None:
            raise ValueError(f"the bar for {self.metric} has neither min nor max")
        return self


class Comparison(_Section):
    """How a challenger must beat the champion, on the same held-out records."""

    metric: Metric
    """One of those below; its direction says what is better."""
    min_improvement: float = Field(default=0.0, ge=0)
    """The improvement must be larger than this, in the metric's unit."""


class GateSection(_Section):
    """When a model may become champion."""

    bars: list[Bar] = Field(min_length=1)
    """All must be kept."""
    champion: Comparison


class ScheduleSection(_Section):
    """When the cast is repeated."""

    cron: str = Field(min_length=9)
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: str = "UTC"
    """In which the cron line is read, as the tz database names it."""


class Recipe(_Section):
    """One model kept fresh."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """The registered model's name."""
    workload: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    """The kind of work: a module of `recaster.workloads`, with hyphens."""
    data: DataSection
    contract: ContractSection = ContractSection()
    split: SplitSection
    model: ModelSection
    train: TrainSection
    distributed: DistributedSection
    evaluate: EvaluateSection = EvaluateSection()
    gate: GateSection
    schedule: ScheduleSection | None = None

    @model_validator(mode="after")
    def _batch_fits_ranks(self) -> Recipe:
        section, train = self.distributed, self.train
        if train.batch_size < section.data_ranks:
            raise ValueError(
                f"train.batch_size {train.batch_size} leaves some of {section.data_ranks} ranks without a "
                f"sample; set it to {section.data_ranks} or more"
            )
        if section.strategy != "pipeline":
            return self
        rows, stages = math.ceil(train.batch_size / section.data_ranks), section.mesh.pipe
        if train.micro_batch_size is None:
            raise ValueError(
                "strategy pipeline needs train.micro_batch_size, the samples that flow through together; "
                f"for example {max(1, rows // (2 * stages))}"
            )
        passes = math.ceil(rows / train.micro_batch_size)
        if section.stages_per_rank > 1 and passes % max(1, passes // stages):
            raise ValueError(
                f"train.micro_batch_size {train.micro_batch_size} makes {passes} micro-batches, which "
                f"the interleaved schedule cannot deal out to {stages} ranks; use a size that makes a "
                f"multiple of {stages}"
            )
        return self
