"""The recipe's `train.adversary` section: the network that a generator is trained against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from recaster.recipe.section import Fraction, Section

if TYPE_CHECKING:
    from recaster.recipe.schema import Recipe

GENERATION = "image-generation"
"""The workload whose model is a generator."""
GAN_LOSSES = ("hinge", "non-saturating", "wasserstein")
"""Those of a generator and a discriminator."""
_SCHEMES = ("allreduce", "fp16", "bf16")
"""Ways to agree that keep nothing of a step whose gradients were another network's."""


class AdversarySection(Section):
    """The discriminator of image-generation, and what keeps the two networks in balance."""

    learning_rate: float = Field(default=0.0004, gt=0)
    """Of the discriminator, at the peak of the schedule; the generator's is `optimizer.learning_rate`, often
    a smaller one (two time scales, Heusel et al. 2017)."""
    turns: int = Field(default=1, ge=1, le=10)
    """Steps of the discriminator for each step of the generator."""
    width: int | None = Field(default=None, ge=4, le=1024, multiple_of=4)
    """Channels of the discriminator; without it `model.width`, or those of the base's."""
    encoder: str | None = None
    """An open network for pictures, through whose frozen features the discriminator sees them (Sauer et al.
    2021): far fewer pictures are needed. Another one than evaluate.encoder, which would judge its pupil."""
    encoder_licence: str | None = None
    """Of the encoder, where neither its source nor the catalogue says."""
    encoder_size: int | None = Field(default=None, ge=32, le=1024)
    """Pixels a side to which the encoder scales pictures; without it they go in as they are."""
    spectral_norm: bool = True
    """Divide its layers' weights by their largest singular value (Miyato et al. 2018)."""
    penalty: Literal["none", "r1", "interpolated"] = "none"
    """On its gradient: r1, at real pictures (Mescheder et al. 2018); interpolated, towards norm 1 between
    real and generated ones (Gulrajani et al. 2017)."""
    penalty_weight: float = Field(default=1.0, gt=0)
    """Of the penalty in its loss, over pixels in -1..1; r1's is the paper's gamma."""
    augmentation_target: Fraction | None = None
    """Change what it sees as often as keeps the mean sign of its answers to real pictures at this, such as
    0.6 (Karras et al. 2020); for sets of few thousand pictures. Without it nothing is changed."""
    augmentation_probability: float | None = Field(default=None, gt=0, le=1)
    """Change it always as often (Zhao et al. 2020): of each kind of change, the share of pictures."""
    augmentation_pictures: int = Field(default=50_000, ge=100)
    """Real pictures over which the changes may go from never to always."""
    min_distinct: float = Field(default=0.1, ge=0, le=1)
    """Training ends as collapsed when fewer of the generated pictures are no near copies of each other …"""
    collapse_validations: int = Field(default=5, ge=1)
    """… in so many validations, one after the other."""

    @model_validator(mode="after")
    def _options_apply(self) -> AdversarySection:
        if "penalty_weight" in self.changed() and self.penalty == "none":
            raise ValueError(
                "penalty_weight belongs to a penalty; set that to r1 or interpolated, or remove it"
            )
        if self.encoder and self.penalty != "none":
            raise ValueError(
                f"penalty {self.penalty} is of one picture's gradient, and with encoder the judge looks at"
                " each by the batch it stands in; remove one of them"
            )
        if self.encoder is None and (self.encoder_size or self.encoder_licence):
            raise ValueError("encoder_size and encoder_licence belong to encoder; name one, or remove them")
        if self.augmentation_probability is not None and self.augmentation_target is not None:
            raise ValueError("augmentation_probability stays, and augmentation_target moves it; remove one")
        if "augmentation_pictures" in self.changed() and self.augmentation_target is None:
            raise ValueError("augmentation_pictures belongs to augmentation_target; set that, or remove it")
        return self


def check_generation(recipe: Recipe) -> None:
    """Refuse what a generator cannot be trained with, and its options elsewhere.

    Raises:
        ValueError: with the repair.
    """
    ours, train = recipe.workload == GENERATION, recipe.train
    if ours != (train.loss.name in GAN_LOSSES):
        fit = ", ".join(GAN_LOSSES) if ours else "another than " + ", ".join(GAN_LOSSES)
        raise ValueError(f"train.loss {train.loss.name} is not for workload {recipe.workload}; use {fit}")
    if not ours:
        _refuse_elsewhere(recipe)
        return
    if recipe.model.conditional and not recipe.data.labels:
        raise ValueError("model.conditional needs data.labels, the classes to choose from")
    if recipe.evaluate.encoder_size and not recipe.evaluate.encoder:
        raise ValueError("evaluate.encoder_size belongs to evaluate.encoder; name one, or remove it")
    if recipe.train.adversary.encoder and recipe.train.adversary.encoder == recipe.evaluate.encoder:
        raise ValueError(
            "train.adversary.encoder and evaluate.encoder are one network, which the generator learns to "
            "please: its distance would tell nothing; name another one for either"
        )
    _refuse_methods(recipe)
    _refuse_ranks(recipe)


def _refuse_elsewhere(recipe: Recipe) -> None:
    given = {
        "train.adversary": recipe.train.adversary.changed(),
        "model.conditional": recipe.model.conditional,
        "model.noise": "noise" in recipe.model.changed(),
        "evaluate.encoder": recipe.evaluate.encoder,
        "evaluate.encoder_size": recipe.evaluate.encoder_size,
    }
    for key in (key for key, value in given.items() if value):
        raise ValueError(f"{key} belongs to the workload {GENERATION}; remove it")


def _refuse_methods(recipe: Recipe) -> None:
    train, options = recipe.train, recipe.train.augmentation
    because = {
        f"customize.method {recipe.customize.method}": recipe.customize.method != "full"
        or recipe.customize.full.unfreeze_every_epochs > 0,
        "train.loss.consistency": train.loss.consistency > 0,
        "train.augmentation of mixed pictures": options.mixes,
        f"train.optimizer {train.optimizer.name}": train.optimizer.name == "muon",
        "train.optimizer.layer_decay": train.optimizer.layer_decay != 1,
        "train.precision fp16": train.precision == "fp16",
        "train.compile": train.compile,
        "train.activation_checkpointing": train.activation_checkpointing,
    }
    for what in (what for what, wrong in because.items() if wrong):
        raise ValueError(f"{what} does not go with two networks that take turns; remove it")


def _refuse_ranks(recipe: Recipe) -> None:
    strategy, scheme = recipe.distributed.strategy, recipe.communication.scheme
    if strategy not in ("single", "ddp"):
        raise ValueError(
            f"strategy {strategy} shares one network out, and workload {GENERATION} has two small ones of "
            "which each step trains one; use ddp"
        )
    if scheme not in _SCHEMES:
        raise ValueError(
            f"communication {scheme} carries what is left of a step into the next, which trains the other "
            f"network; use one of {', '.join(_SCHEMES)}"
        )
