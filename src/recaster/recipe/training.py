"""The recipe's `train` section: the optimisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recaster.recipe.adversary import AdversarySection
from recaster.recipe.section import Section, Seed
from recaster.recipe.trees import ParsingWeights
from recaster.recipe.words import Contexts

_OPTIMIZER_OPTIONS: dict[str, frozenset[str]] = {
    "sgd": frozenset({"momentum", "nesterov"}),
    "rmsprop": frozenset({"momentum", "epsilon"}),
    "muon": frozenset({"momentum", "nesterov", "betas", "epsilon"}),
    **dict.fromkeys(
        ("adam", "adamw", "nadam", "radam", "adamax", "lazy-adam"), frozenset({"betas", "epsilon"})
    ),
    **dict.fromkeys(("adagrad", "adadelta"), frozenset({"epsilon"})),
    **dict.fromkeys(("adafactor", "asgd"), frozenset[str]()),
}
"""The options beside rate and decay that each of torch's update rules takes."""


FACE_LOSSES = ("arcface", "cosface", "triplet")
"""Those that bring one person's embeddings together and keep others away."""
BOX_LOSSES = ("focal", "set-prediction")
"""Of object-detection."""
_LOSS_OPTIONS = {
    "label_smoothing": ("cross-entropy", "preference"),
    "gamma": ("focal",),
    "beta": ("preference",),
}
"""Options of a loss, and whose they are."""


class Optimizer(Section):
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
        "lazy-adam",
    ]
    """muon updates the matrices of hidden layers; embeddings, heads and vectors get adamw. lazy-adam, of
    word-embedding, moves only the rows of its tables that a step has seen: a step costs the same however many
    words there are."""
    learning_rate: float = Field(gt=0)
    """Peak of the schedule."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled from the gradient with adamw, muon and adafactor, added to it elsewhere."""
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
    norm_bias_factor: float = Field(default=1.0, gt=0)
    """Biases of normalisation layers learn at this times the rate; Page 2019 has 64, with sgd. Refused of a
    model that trains none."""

    @model_validator(mode="after")
    def _options_apply(self) -> Optimizer:
        optional = frozenset.union(*_OPTIMIZER_OPTIONS.values())
        if useless := (self.changed() & optional) - _OPTIMIZER_OPTIONS[self.name]:
            takes = ", ".join(sorted(_OPTIMIZER_OPTIONS[self.name])) or "none of these"
            raise ValueError(
                f"{self.name} has no {', '.join(sorted(useless))} (it takes: {takes}); remove it"
            )
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), not {self.betas}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum above 0")
        return self


class Schedule(Section):
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


class Augmentation(Section):
    """Random changes to training pictures; method `probe` takes its features of the pictures as they are."""

    shift_pixels: int = Field(default=0, ge=0, le=64)
    """Largest shift in each direction: a random crop out of the picture with a border of so many pixels."""
    border: Literal["zero", "reflect"] = "zero"
    """What the shift brings in: zero, the smallest pixel value; reflect, the picture mirrored."""
    horizontal_flip: bool = False
    """Mirror every other picture, left to right."""
    rotate_degrees: float = Field(default=0.0, ge=0, le=180)
    """Largest turn to either side."""
    zoom: float = Field(default=0.0, ge=0, lt=1)
    """Largest share by which a picture is enlarged or shrunk."""
    brightness: float = Field(default=0.0, ge=0, le=1)
    """Pixels are multiplied by 1 plus or minus at most this."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Distances from the picture's mean grey are multiplied likewise."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Distances from each pixel's own grey are multiplied likewise."""
    rand_augment_operations: int = Field(default=0, ge=0, le=8)
    """Changes that each picture gets out of thirteen: none, shears, shifts, a turn, colours, sharpness, fewer
    bits and the like (Cubuk et al. 2020)."""
    rand_augment_magnitude: float = Field(default=0.3, gt=0, le=1)
    """Strength of all of them; 1 turns by 30 degrees."""
    erase_probability: float = Field(default=0.0, ge=0, le=1)
    """Share of pictures of which a random colour covers a rectangle of 2 to 33 % (Zhong et al. 2017)."""
    mixup_alpha: float = Field(default=0.0, ge=0)
    """Blend with another picture, labels too, by a share from Beta(alpha, alpha) (Zhang et al. 2018)."""
    cutmix_alpha: float = Field(default=0.0, ge=0)
    """Paste a rectangle of another picture likewise (Yun et al. 2019). With both, every other picture."""

    mosaic_probability: float = Field(default=0.0, ge=0, le=1)
    """Share of pictures that are made of pieces of four (Bochkovskiy et al. 2020); of pictures with boxes."""
    vertical_flip: bool = False
    """Mirror every other picture, upside down; of pictures with boxes."""

    @model_validator(mode="after")
    def _options_apply(self) -> Augmentation:
        if self.border != "zero" and not self.shift_pixels:
            raise ValueError("border belongs to shift_pixels; set that, or remove it")
        if "rand_augment_magnitude" in self.changed() and not self.rand_augment_operations:
            raise ValueError(
                "rand_augment_magnitude belongs to rand_augment_operations; set that, or remove it"
            )
        return self

    @property
    def mixes(self) -> bool:
        """Whether a sample's target is several labels' shares."""
        return bool(self.mixup_alpha or self.cutmix_alpha)


class Loss(Section):
    """What training makes small."""

    name: Literal[
        "cross-entropy",
        "binary-cross-entropy",
        "focal",
        "margin",
        "brier",
        "arcface",
        "cosface",
        "triplet",
        "set-prediction",
        "hinge",
        "non-saturating",
        "wasserstein",
        "preference",
    ] = "cross-entropy"
    """binary-cross-entropy: of records with several labels, the mean over these; focal: Lin et al. 2017;
    margin: multi-class hinge; brier: squared error of the probabilities. Of face-recognition: arcface (Deng
    et al. 2019), cosface (Wang et al. 2018), triplet (hardest of each pass, Hermans et al. 2017). Of
    object-detection: focal for the detector of this package, set-prediction (Carion et al. 2020) for those
    of the DETR family. Of image-generation: hinge (Lim and Ye 2017), non-saturating (Goodfellow et al. 2014),
    wasserstein (Arjovsky et al. 2017; it wants the penalty `interpolated`). Of chat with
    data.chat.preferences: preference (DPO, Rafailov et al. 2023)."""
    beta: float = Field(default=0.1, gt=0)
    """Of preference: the log-ratio of model to base, in nats, is multiplied by this before the sigmoid; more
    of it keeps the model nearer to its base."""
    distance: float = Field(default=0.3, gt=0, lt=2)
    """By how much a face's own person must be nearer than others: an angle in radians of arcface, a cosine of
    cosface, a distance of triplet."""
    scale: float = Field(default=32.0, gt=0)
    """Of arcface and cosface: cosines are multiplied by this before the softmax."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target's probability that is spread over all classes; of cross-entropy. Of preference:
    share of pairs that are taken to be the wrong way round (conservative DPO), below a half."""
    gamma: float = Field(default=2.0, ge=0)
    """How much less an easy target counts; of focal."""
    weights: ParsingWeights = ParsingWeights()
    """Of dependency-parsing."""
    outlier_weight: float | None = Field(default=None, ge=0)
    """Of data.out_of_scope: how much its training texts count. They are learned as equally likely of each
    label (outlier exposure, Hendrycks et al. 2019, who use 0.5); 0 leaves them out of the loss."""
    class_weights: Literal["balanced"] | list[float] | None = None
    """How much a row counts by its label: a number for each of data.labels, or balanced, the inverse of the
    label's share of the training split, 1 on average. Of binary-cross-entropy it weighs the label's presence
    against its absence; balanced makes both count the same. Validation is measured without."""
    consistency: float = Field(default=0.0, ge=0)
    """Answer each row twice, under different dropout, and add so much of the two answers' divergence: half
    of R-Drop's alpha (Liang et al. 2021). Above 0 a step takes twice the time."""

    @model_validator(mode="after")
    def _options_apply(self) -> Loss:
        for option, owners in _LOSS_OPTIONS.items():
            if option in self.changed() and self.name not in owners:
                raise ValueError(
                    f"{option} belongs to loss {' or '.join(owners)}, not {self.name}; remove it"
                )
        if self.name == "preference" and self.label_smoothing >= 0.5:
            raise ValueError(f"label_smoothing {self.label_smoothing} would prefer the rejected replies")
        if isinstance(self.class_weights, list) and min(self.class_weights, default=0) <= 0:
            raise ValueError(f"class_weights must all be above 0, not {self.class_weights}")
        for option, owners in (("distance", FACE_LOSSES), ("scale", FACE_LOSSES[:2])):
            if option in self.changed() and self.name not in owners:
                raise ValueError(
                    f"{option} belongs to losses {', '.join(owners)}, not {self.name}; remove it"
                )
        return self


class EarlyStopping(Section):
    """Stop when validation no longer improves."""

    metric: Literal["loss", "accuracy"] = "loss"
    """Of the validation split."""
    patience_epochs: int = Field(ge=1)
    """Validations without improvement after which training ends."""
    min_improvement: float = Field(default=0.0, ge=0)
    """A smaller improvement, in the metric's unit, does not count."""


class TrainSection(Section):
    """The optimisation."""

    seed: Seed
    """Of first weights, order of samples, augmentation and dropout."""
    epochs: int = Field(ge=1)
    """Passes over the training split."""
    max_steps: int | None = Field(default=None, ge=1)
    """End after so many optimizer steps, within an epoch too; the schedule is made for as many."""
    batch_size: int = Field(ge=1)
    """Samples in one optimizer step, over all ranks."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Samples in one forward and backward pass of one rank; the gradients of a step's passes add up.
    Without it a rank takes its share of a step in one pass. Halved, aloud, when memory runs out."""
    precision: Literal["float32", "tf32", "bf16", "fp16"] = "float32"
    """tf32: float32 with shorter products, on a GPU. bf16, fp16: computed in 16 bits where that is safe;
    weights and the optimizer stay in float32; fp16 scales the loss so that small gradients survive. A
    processor without instructions for bf16 is far slower in it; a training and `check` say so."""
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    adversary: AdversarySection = AdversarySection()
    augmentation: Augmentation = Augmentation()
    contexts: Contexts = Contexts()
    max_gradient_norm: float | None = Field(default=1.0, gt=0)
    """The whole gradient is scaled down to this norm; null leaves it as it is."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Keep an exponential moving average of the weights, with this decay a step; it is what is
    validated and what comes out."""
    early_stopping: EarlyStopping | None = None
    keep_best: Literal["loss", "accuracy"] | None = None
    """The weights of the epoch with the best validation come out; without it those of the last step."""
    validate_every_epochs: int = Field(default=1, ge=1)
    """Epochs between two measurements on the validation split; the last epoch always has one."""
    freeze: list[str] = Field(default_factory=list)
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
    """Optimizer steps between two checkpoints; what a kill can cost."""
    keep_checkpoints: int = Field(default=3, ge=2)
    """At least two, so that a damaged one has one before it."""
    record_every_steps: int = Field(default=10, ge=1)
    """Steps between two lines of the journal; a GPU is waited for only then."""

    @model_validator(mode="after")
    def _mixed_labels_have_a_loss(self) -> TrainSection:
        if self.augmentation.mixes and self.loss.name not in {"cross-entropy", "brier"}:
            raise ValueError(
                f"loss {self.loss.name} takes one label a sample, and mixup and cutmix give it two; use "
                "cross-entropy or brier, or remove them"
            )
        return self
