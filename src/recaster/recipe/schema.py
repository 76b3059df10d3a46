"""The recipe's schema: the whole truth of a cast. Defaults live here and nowhere else.

Fields without a default are decisions that every recipe states. Units are in names or under the field.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from recaster.recipe.communication import CommunicationSection
from recaster.recipe.distributed import DistributedSection
from recaster.recipe.search import SearchSection
from recaster.recipe.section import Fraction, Section, Seed
from recaster.recipe.training import TrainSection

METRICS = {
    "accuracy": "higher",
    "macro_f1": "higher",
    "negative_log_likelihood": "lower",
    "calibration_error": "lower",
    "predictive_entropy": "lower",
}
"""Every metric that a gate can name, and which direction is better."""


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return name


Metric = Annotated[str, AfterValidator(_known_metric)]


class ImageShape(Section):
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


class DataSection(Section):
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


class ContractSection(Section):
    """When a data set is refused; below these bounds, bad rows go to quarantine."""

    max_quarantined_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of records that may break the contract; above it the data set is refused."""
    min_rows: int = Field(default=100, ge=1)
    """Good records of the whole set."""
    min_rows_per_label: int = Field(default=10, ge=1)
    """Fewer would leave a split without the label."""


class SplitSection(Section):
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


class ModelSection(Section):
    """Where the weights start."""

    base: Literal["scratch:small-cnn"]
    """`scratch:` begins with fresh weights of that architecture."""
    width: int = Field(default=32, ge=4, le=512, multiple_of=4)
    """Channels of the first convolution; the second has twice as many."""
    activation: Literal["relu", "gelu", "silu", "elu", "leaky-relu", "mish"] = "relu"
    """What follows each convolution."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the last layer's inputs that are left out in each training pass."""


class EvaluateSection(Section):
    """Metrics on the held-out split."""

    seed: Seed = 0
    """Of the resampling."""
    bootstrap_samples: int = Field(default=1000, ge=100)
    """Resamplings of the held-out records for each interval (accuracy has Wilson's instead)."""
    confidence: Fraction = 0.95
    """Coverage of each interval."""
    calibration_bins: int = Field(default=15, ge=2)
    """Equal widths of confidence over which the calibration error is summed."""


class Bar(Section):
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


class Comparison(Section):
    """How a challenger must beat the champion, on the same held-out records."""

    metric: Metric
    """One of those below; its direction says what is better."""
    min_improvement: float = Field(default=0.0, ge=0)
    """The improvement must be larger than this, in the metric's unit."""


class GateSection(Section):
    """When a model may become champion."""

    bars: list[Bar] = Field(min_length=1)
    """All must be kept."""
    champion: Comparison


class ScheduleSection(Section):
    """When the cast is repeated."""

    cron: str = Field(min_length=9)
    """Five fields: minute, hour, day of month, month, day of week."""
    timezone: str = "UTC"
    """In which the cron line is read, as the tz database names it."""


class Recipe(Section):
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
    communication: CommunicationSection = CommunicationSection()
    evaluate: EvaluateSection = EvaluateSection()
    gate: GateSection
    schedule: ScheduleSection | None = None
    search: SearchSection | None = None

    @model_validator(mode="after")
    def _best_weights_are_of_one_model(self) -> Recipe:
        scheme = self.communication.scheme
        apart = scheme in ("local-sgd", "diloco") or self.communication.parameter_server.staleness is not None
        if self.train.keep_best and apart:
            raise ValueError(
                f"train.keep_best needs ranks with one model, which {scheme} has only now and then; remove "
                "keep_best, or use another communication scheme"
            )
        return self

    @model_validator(mode="after")
    def _muon_sees_whole_matrices(self) -> Recipe:
        if self.train.optimizer.name == "muon" and self.distributed.strategy not in ("single", "ddp"):
            raise ValueError(
                f"muon needs whole matrices on each rank, which strategy {self.distributed.strategy} "
                "does not keep; use ddp, or adamw"
            )
        return self

    @model_validator(mode="after")
    def _communication_fits_strategy(self) -> Recipe:
        scheme, strategy = self.communication.scheme, self.distributed.strategy
        if scheme != "allreduce" and strategy != "ddp":
            raise ValueError(
                f"communication {scheme} belongs to strategy ddp, not {strategy}; remove communication, or "
                "set distributed.strategy to ddp"
            )
        stale = self.communication.parameter_server.staleness is not None
        drifts = scheme in ("powersgd", "topk", "local-sgd", "diloco", "auto") or stale
        if self.train.precision == "fp16" and drifts:
            raise ValueError(
                f"communication {scheme} keeps what fp16's changing scale and skipped steps would spoil; set "
                "train.precision to bf16"
            )
        if stale and (optimizer := self.train.optimizer.name) in ("muon", "adafactor"):
            raise ValueError(
                f"train.optimizer {optimizer} cannot update a share of the weights apart from the rest; use "
                "adamw or sgd, or remove communication.parameter_server.staleness"
            )
        return self

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
