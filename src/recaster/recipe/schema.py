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
    width: int = Field(ge=4, le=4096)
    channels: Literal[1, 3]
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
    labels: list[str] = Field(min_length=2)
    """Every legal label, in the order of the model's outputs."""
    image: ImageShape

    @model_validator(mode="after")
    def _distinct(self) -> DataSection:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels repeat: {self.labels}")
        return self


class ContractSection(_Section):
    """When a data set is refused; below these bounds, bad rows go to quarantine."""

    max_quarantined_fraction: float = Field(default=0.01, ge=0, le=1)
    min_rows: int = Field(default=100, ge=1)
    min_rows_per_label: int = Field(default=10, ge=1)
    """Fewer would leave a split without the label."""


class SplitSection(_Section):
    """How records are divided; duplicates of one picture always stay on one side."""

    seed: Seed
    validation: Fraction
    test: Fraction
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
    width: int = Field(default=32, ge=4, le=512, multiple_of=4)
    """Channels of the first convolution; the second has twice as many."""
    activation: Literal["relu", "gelu", "silu", "elu", "leaky-relu", "mish"] = "relu"
    dropout: float = Field(default=0.2, ge=0, lt=1)


_OPTIMIZER_OPTIONS: dict[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "nesterov"}),
    "rmsprop": frozenset({"momentum", "epsilon"}),
    "muon": frozenset({"momentum", "nesterov", "betas", "epsilon"}),
    **dict.fromkeys(("adam", "adamw", "nadam", "radam", "adamax"), frozenset({"betas", "epsilon"})),
    **dict.fromkeys(("adagrad", "adadelta"), frozenset({"epsilon"})),
    **dict.fromkeys(("adafactor", "asgd"), frozenset[str]()),
}
"""The options beside rate and decay that each of torch's update rules takes."""


class Optimizer(_Section):
    """Update rule."""

    name: Literal[
        "adamw",
        "sgd",
        "adam",
        "nadam",
        "radam",
        "adamax",
        "adagrad",
        "adadelta",
        "rmsprop",
        "adafactor",
        "asgd",
        "muon",
    ]
    """muon updates the matrices of hidden layers; embeddings, heads and vectors get adamw."""
    learning_rate: float = Field(gt=0)
    """Peak of the schedule."""
    weight_decay: float = Field(default=0.01, ge=0)
    decay_vectors: bool = True
    """Whether biases and normalisation weights decay too."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd, rmsprop and muon."""
    nesterov: bool = False
    """Of sgd and muon: look ahead along the momentum."""
    betas: list[float] = Field(default=[0.9, 0.999], min_length=2, max_length=2)
    """Decay of the first and second moment; of the Adam family, and of muon's adamw."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Added to the denominator; of all that divide by a second moment."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer's rate is this times the rate of the layer after it; 1 gives all the same."""

    @model_validator(mode="after")
    def _options_apply(self) -> Optimizer:
        optional = frozenset.union(*_OPTIMIZER_OPTIONS.values())
        if useless := (self.model_fields_set & optional) - _OPTIMIZER_OPTIONS[self.name]:
            takes = ", ".join(sorted(_OPTIMIZER_OPTIONS[self.name])) or "none of these"
            raise ValueError(
                f"{self.name} has no {', '.join(sorted(useless))} (it takes: {takes}); remove it"
            )
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), not {self.betas}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum above 0")
        return self


class Schedule(_Section):
    """Learning rate over the run, as a share of the optimizer's rate."""

    name: Literal["cosine", "constant", "linear", "one-cycle", "step"] = "cosine"
    """After warm-up: cosine and linear fall to `final_fraction`; step multiplies by `factor` every
    `step_epochs`; one-cycle rises from 1/25 along a cosine in place of the linear warm-up, then falls
    to a 250,000th (Smith and Topin 2018)."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises linearly from zero."""
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Where cosine and linear end."""
    step_epochs: int | None = Field(default=None, ge=1)
    """Epochs between two drops of step."""
    factor: float | None = Field(default=None, gt=0, lt=1)
    """By which step multiplies the rate."""

    @model_validator(mode="after")
    def _options_apply(self) -> Schedule:
        steps = [self.step_epochs, self.factor]
        if self.name == "step" and None in steps:
            raise ValueError("schedule step needs step_epochs and factor, for example 30 and 0.1")
        if self.name != "step" and steps != [None, None]:
            raise ValueError(f"step_epochs and factor belong to schedule step, not {self.name}; remove them")
        if self.final_fraction and self.name not in ("cosine", "linear"):
            raise ValueError(f"final_fraction belongs to cosine and linear, not {self.name}; remove it")
        return self


class Augmentation(_Section):
    """Random changes to training pictures."""

    shift_pixels: int = Field(default=0, ge=0, le=64)
    """Largest shift in each direction; the border is filled with the smallest pixel value."""


class Loss(_Section):
    """What training makes small."""

    name: Literal["cross-entropy", "focal", "margin", "brier"] = "cross-entropy"
    """focal: Lin et al. 2017; margin: multi-class hinge; brier: squared error of the probabilities."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability that is spread over all classes; of cross-entropy."""
    gamma: float = Field(default=2.0, ge=0)
    """How much less an easy target counts; of focal."""

    @model_validator(mode="after")
    def _options_apply(self) -> Loss:
        for option, owner in (("label_smoothing", "cross-entropy"), ("gamma", "focal")):
            if option in self.model_fields_set and self.name != owner:
                raise ValueError(f"{option} belongs to loss {owner}, not {self.name}; remove it")
        return self


class EarlyStopping(_Section):
    """Stop when validation no longer improves."""

    metric: Literal["loss", "accuracy"] = "loss"
    """Of the validation split."""
    patience_epochs: int = Field(ge=1)
    """Validations without improvement after which training ends."""
    min_improvement: float = Field(default=0.0, ge=0)
    """A smaller improvement, in the metric's unit, does not count."""


class TrainSection(_Section):
    """The optimisation."""

    seed: Seed
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    """Samples in one optimizer step, over all ranks."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Samples in one forward and backward pass of one rank; the gradients of a step's passes add up.
    Without it a rank takes its share of a step in one pass. Halved, aloud, when memory runs out."""
    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32"
    """tf32: float32 with shorter products, on a GPU. bf16, fp16: computed in 16 bits where that is safe;
    weights and the optimizer stay in float32; fp16 scales the loss so that small gradients survive."""
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    augmentation: Augmentation = Augmentation()
    max_gradient_norm: float | None = Field(default=1.0, gt=0)
    """The whole gradient is scaled down to this norm; null leaves it as it is."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Keep an exponential moving average of the weights, with this decay a step; it is what is
    validated and what comes out."""
    early_stopping: EarlyStopping | None = None
    keep_best: Literal["loss", "accuracy"] | None = None
    """The weights of the epoch with the best validation come out; without it those of the last step."""
    validate_every_epochs: int = Field(default=1, ge=1)
    freeze: list[str] = []
    """Parameters that stay as they are: patterns of their names, such as `features.*`."""
    activation_checkpointing: bool = False
    """Compute the blocks' activations again in backward in place of keeping them: less memory, more time."""
    channels_last: bool = False
    """Keep pictures and convolution weights with the channels innermost, as most kernels like it."""
    compile: bool = False
    """Compile the model with torch.compile: some seconds to minutes at the start, faster steps on a GPU."""
    deterministic: bool = True
    """Bitwise the same on every run of the same machine; false lets kernels be chosen by speed."""
    checkpoint_every_steps: int = Field(default=50, ge=1)
    keep_checkpoints: int = Field(default=3, ge=2)
    """At least two, so that a damaged one has one before it."""
    record_every_steps: int = Field(default=10, ge=1)
    """Steps between two lines of the journal; a GPU is waited for only then."""


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
_HOW_STARTED = {
    "max_restarts",
    "min_ranks",
    "hang_timeout_seconds",
    "launcher",
    "nodes",
    "rendezvous",
    "ray_address",
}


class DistributedSection(_Section):
    """The processes that train together."""

    strategy: Literal["single", "ddp", "fsdp", "tensor", "pipeline"]
    ranks: int = Field(ge=1, le=64)
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


class PowerSgdOptions(_Section):
    """Used by powersgd: each gradient matrix travels as two thin ones."""

    rank: int = Field(default=4, ge=1, le=256)
    """Columns of the thin matrices: more is nearer to the gradient, and dearer to send."""
    start_step: int = Field(default=3, ge=1)
    """The first step that is compressed; those before are plain."""
    warm_start: bool = True
    """Begin each step from the factors of the one before."""
    error_feedback: bool = True
    """Add what was lost in a step to the next step's gradient."""


class TopKOptions(_Section):
    """Used by topk: only the largest entries of the gradient travel."""

    fraction: float = Field(default=0.01, gt=0, le=0.5)
    """Share of the entries that are sent; each costs twice its own bytes, since its place travels too."""
    error_feedback: bool = True
    """Add what was not sent in a step to the next step's gradient."""


class LocalSgdOptions(_Section):
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


class ParameterServerOptions(_Section):
    """Used by parameter-server."""

    placement: Literal["sharded", "central"] = "sharded"
    """sharded: each rank serves its share, so that no link carries more than in an all-reduce; central: the
    first rank serves all."""
    staleness: int | None = Field(default=None, ge=0)
    """None: synchronous, all ranks step together. A number: the servers update as gradients come in, and a
    rank goes on as long as no other is more than so many steps behind."""


class AutoOptions(_Section):
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


class CommunicationSection(_Section):
    """How copies of a model (strategy ddp) agree. A scheme's name alone stands for its defaults."""

    scheme: Literal[
        "allreduce", "fp16", "bf16", "powersgd", "topk", "local-sgd", "diloco", "parameter-server", "auto"
    ] = "allreduce"
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


class EvaluateSection(_Section):
    """Metrics on the held-out split."""

    seed: Seed = 0
    bootstrap_samples: int = Field(default=1000, ge=100)
    confidence: Fraction = 0.95
    """Coverage of each interval."""
    calibration_bins: int = Field(default=15, ge=2)


class Bar(_Section):
    """A bound that a metric's point estimate must keep."""

    metric: Metric
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Bar:
        if self.min is None and self.max is None:
            raise ValueError(f"the bar for {self.metric} has neither min nor max")
        return self


class Comparison(_Section):
    """How a challenger must beat the champion, on the same held-out records."""

    metric: Metric
    min_improvement: float = Field(default=0.0, ge=0)
    """The improvement must be larger than this, in the metric's unit."""


class GateSection(_Section):
    """When a model may become champion."""

    bars: list[Bar] = Field(min_length=1)
    champion: Comparison


class ScheduleSection(_Section):
    """When the cast is repeated."""

    cron: str = Field(min_length=9)
    timezone: str = "UTC"


class Recipe(_Section):
    """One model kept fresh."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    """The registered model's name."""
    workload: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
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
