"""Classifiers over sentence encoders, out of base folders.

config.json {"model_type": "bert", …}                   → its encoder below a fresh head
config.json {"architecture": "sentence_classifier", …}  → a whole classifier, as an artifact has it
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recaster.core.files import read_json
from recaster.models.bert_bases import read_encoder
from recaster.models.bert_encoder import rename_published
from recaster.models.loading import LoadReport, load_state, read_state
from recaster.models.sentence_classifier import SentenceClassifier

_HEAD = "head."


class OpenSentences(SentenceClassifier):
    """The classifier, and what became of the base's weights."""

    report: LoadReport


def is_sentence_classifier(base: Path) -> bool:
    """Whether the base in this folder is an artifact of such a classifier."""
    return bool(read_json(base / "config.json").get("architecture") == "sentence_classifier")


def sentence_arguments(base: Path, *, labels: Sequence[str], padding: int) -> dict[str, Any]:
    """Of `sentence_classifier.build_model`, for the encoder in a base folder.

    Raises:
        RecipeError: it is of another kind than BERT.
    """
    if is_sentence_classifier(base):
        size = read_json(base / "config.json")["arguments"]["size"]
    else:
        size = read_encoder(base, of="The mean over all tokens is for encoders of the BERT kind.")
    return {"size": size, "labels": len(labels), "padding": padding}


def build_sentence_classifier(base: Path, *, labels: Sequence[str], padding: int) -> OpenSentences:
    """A classifier with the base's encoder, float32; its head too where it is for the same labels.

    Raises:
        RecipeError: the encoder is of another kind than BERT.
        BaseModelError: none of the base's weights fits.
    """
    model = OpenSentences(**sentence_arguments(base, labels=labels, padding=padding))
    state = {name: value.float() for name, value in read_state(base).items()}
    if is_sentence_classifier(base):
        same = read_json(base / "config.json").get("labels") == list(labels)
        model.report = load_state(
            model, state, rename=lambda name: name if same or not name.startswith(_HEAD) else None
        )
    else:
        model.report = load_state(model, state, rename=_below_head)
    return model


def _below_head(published: str) -> str | None:
    name = rename_published(published)
    return f"encoder.{name}" if name else None
