"""The recipe's `customize` section: how an open model is made one's own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recaster.recipe.section import Section


class FullOptions(Section):
    """Every weight is trained."""

    unfreeze_every_epochs: int = Field(default=0, ge=0)
    """The head is trained alone first; after so many epochs the layer before it joins, and so on down.
    0 trains all from the start (Howard and Ruder 2018)."""


class LoraOptions(Section):
    """Low-rank updates beside frozen weights (Hu et al. 2021), by peft."""

    rank: int = Field(default=8, ge=1, le=1024)
    """Columns of the update's two factors."""
    alpha: float = Field(default=16.0, gt=0)
    """The update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the update's input, in training."""
    targets: list[str] = Field(default_factory=list)
    """Names of the modules that get an update, `all-linear`, or none for the architecture's usual ones."""
    variant: Literal["lora", "rslora", "dora", "pissa"] = "lora"
    """rslora scales by alpha / sqrt(rank); dora splits off the weights' norms; pissa starts from the
    weights' largest singular values."""
    base_bits: Literal[4, 8] | None = None
    """Keep the frozen base in so many bits (QLoRA, Dettmers et al. 2023); needs a GPU and bitsandbytes."""


class PromptOptions(Section):
    """Trained vectors before the text, or before each layer's keys and values, by peft."""

    tokens: int = Field(default=16, ge=1, le=1024)
    """How many."""


class DistilOptions(Section):
    """A smaller model that learns from a larger one's answers (Hinton et al. 2015; Jiao et al. 2020)."""

    teacher: str = Field(min_length=1)
    """MODEL reference of a model that was trained for the same labels, such as `models:/NAME@champion`."""
    teacher_licence: str | None = None
    """Of the teacher, where neither its source nor the catalogue says."""
    layers: int | None = Field(default=None, ge=1)
    """Of the student, taken evenly from the teacher's, with the base's embeddings; from the base's own where
    the two differ in width or architecture. Without it the student is the base as it is."""
    temperature: float = Field(default=2.0, gt=0)
    """Divides both models' logits before they are compared."""
    logits_weight: float = Field(default=0.7, ge=0, le=1)
    """Share of the teacher's answers in the loss; the rest is the labels'."""
    hidden_weight: float = Field(default=1.0, ge=0)
    """Of the mean squared difference between the student's layers' outputs and those of the teacher's;
    0 where an architecture does not show its layers (networks for pictures)."""


class PruneOptions(Section):
    """Weights that matter least are left out before training."""

    structure: Literal["weights", "neurons"]
    """weights: zeros among the matrices' entries, by magnitude over all layers, of the same size on disk;
    neurons: whole units of the feed-forward layers, as many in each, so that the model is really smaller."""
    fraction: float = Field(gt=0, lt=1)
    """How many are left out, of each kind's all."""


_OPTIONS: dict[str, str] = {
    "full": "full",
    "lora": "lora",
    "prompt": "prompt",
    "prefix": "prompt",
    "distil": "distil",
    "prune": "prune",
}
"""The section with each method's options; the methods that are not here have none."""


class CustomizeSection(Section):
    """How the base model is changed and which of its weights are trained."""

    method: Literal["full", "probe", "lora", "bitfit", "prompt", "prefix", "distil", "prune", "quantize"] = (
        "full"
    )
    """probe: the head alone, on features that are computed once; bitfit: biases and the head (Zaken et
    al. 2021); prompt, prefix: for language models (Lester et al. 2021; Li and Liang 2021); quantize: every
    weight, in training that sees the rounding of an int8 export (Jacob et al. 2018)."""
    full: FullOptions = FullOptions()
    lora: LoraOptions = LoraOptions()
    prompt: PromptOptions = PromptOptions()
    distil: DistilOptions | None = None
    prune: PruneOptions | None = None

    @model_validator(mode="after")
    def _options_apply(self) -> CustomizeSection:
        own = _OPTIONS.get(self.method)
        for name in self.changed() - {"method"}:
            if name != own:
                raise ValueError(f"section {name} does not belong to method {self.method}; remove it")
        if own and getattr(self, own) is None:
            raise ValueError(f"method {self.method} needs its section, customize.{own}")
        return self
