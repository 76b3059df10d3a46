"""The recipe's `evaluate` section: metrics on the held-out split, and which options belong to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from recaster.recipe.policy import CHAT
from recaster.recipe.section import Fraction, Section, Seed

if TYPE_CHECKING:
    from recaster.recipe.schema import Recipe

FACES = "face-recognition"
"""The workload whose splits share no person."""
_PICTURES, _TEXTS, _TRANSLATION = "image-classification", "text-classification", "translation"
_OWNERS = {
    "calibration_bins": (_PICTURES, _TEXTS),
    "false_accept_rate": (FACES,),
    "false_reject_rate": (_TEXTS,),
    "flip": (FACES, _PICTURES),
    "shift_pixels": (_PICTURES,),
    "beams": (_TRANSLATION,),
    "length_penalty": (_TRANSLATION,),
    "judge": (CHAT,),
    "judge_licence": (CHAT,),
}
"""Options that mean nothing to other workloads."""


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
    false_accept_rate: Fraction = 0.01
    """Of face-recognition: share of the validation split's pairs of different people that may pass for one;
    the shipped threshold is the lowest that keeps it."""
    false_reject_rate: Fraction | None = None
    """Of data.out_of_scope: share of the validation split's texts with a label that may be taken for out of
    scope; the shipped threshold is the highest probability of an answer that keeps it."""
    flip: bool = False
    """Of face-recognition: an embedding is the mean of the picture's and its mirror image's. Of
    image-classification: so are probabilities (test-time augmentation), also where the model is served."""
    shift_pixels: int = Field(default=0, ge=0, le=64)
    """Of image-classification: probabilities are means over the picture and the same moved by so many pixels
    up, down, left and right; with `flip` over the mirror images of these five too."""
    beams: int = Field(default=4, ge=1, le=64)
    """Of translation: hypotheses that are kept of each text; 1 takes the likeliest token each time. Stands
    with the exported model, which writes so unless asked otherwise."""
    length_penalty: float = Field(default=1.0, ge=0, le=4)
    """Likewise: a hypothesis's log probability is divided by its length to this power; more of it prefers
    longer translations."""
    samples: int = Field(default=16, ge=1, le=1000)
    """Held-out rows on which a model that writes does so, for people to read."""
    judge: str | None = None
    """Of chat: a MODEL reference of a causal language model that judges replies side by side; without it the
    base does, and for a model with fresh weights none."""
    judge_licence: str | None = None
    """Of the judge, where neither its source nor the catalogue says."""
    encoder: str | None = None
    """Of image-generation: a MODEL reference of a network for pictures; generated and held-out ones are
    compared by its features. Without it by their pixels, which says something of small grey pictures only."""
    encoder_licence: str | None = None
    """Of the encoder, where neither its source nor the catalogue says."""
    encoder_size: int | None = Field(default=None, ge=32, le=1024)
    """Pixels a side to which the encoder scales pictures; without it they go in as they are."""


def check_evaluation(recipe: Recipe) -> None:
    """Refuse options of `evaluate` that the recipe's workload does nothing with.

    Raises:
        ValueError: with the repair.
    """
    for name in sorted(recipe.evaluate.changed() & _OWNERS.keys()):
        if recipe.workload not in _OWNERS[name]:
            raise ValueError(
                f"evaluate.{name} belongs to the workload {' or '.join(_OWNERS[name])}, and does nothing for "
                f"{recipe.workload}; remove it"
            )
