"""Which classifier of texts a training plan asks for, and how its artifact is described.

base                                 pooling   network
scratch:kim-cnn, lstm, gru                     text_networks
scratch:text-encoder                           a small BERT of transformers
a table of vectors                             vector_classifier
a model of transformers              first     AutoModelForSequenceClassification
one of the BERT kind                 mean      sentence_classifier
an artifact of sentence_classifier             the same
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from recaster.core.files import read_json
from recaster.models import sentence_classifier, text_networks, vector_classifier
from recaster.models.loading import base_folder
from recaster.models.open_models import build_text_classifier
from recaster.models.sentence_models import (
    build_sentence_classifier,
    is_sentence_classifier,
    sentence_arguments,
)
from recaster.models.word_vectors import begin_with_vectors, build_from_vectors, has_vectors

NETWORKS = ("kim-cnn", "lstm", "gru")
"""Of `models.text_networks`."""


def network_name(base: str) -> str | None:
    """The name of a network of this package with fresh weights; None for transformers and word vectors."""
    name = base.removeprefix("scratch:")
    return name if base.startswith("scratch:") and name in NETWORKS else None


def build_text_model(plan: dict[str, Any], about: dict[str, Any]) -> nn.Module:
    """The base with a head for the plan's labels, or a network with fresh weights.

    Args:
        about: of the prepared tokens: padding, vocabulary, tokens.
    """
    arguments, base = plan["model_arguments"], base_folder(plan)
    if base and has_vectors(base):
        return build_from_vectors(base, **_vector_arguments(base, plan, about))
    if arguments["network"]:
        model = text_networks.build_model(**_network_arguments(plan, about))
        return begin_with_vectors(model, Path(plan["vectors"])) if plan.get("vectors") else model
    # Of plans before there was a choice it is said nowhere.
    if base and (arguments.get("pooling") == "mean" or is_sentence_classifier(base)):
        return build_sentence_classifier(base, labels=arguments["labels"], padding=about["padding"])
    return build_text_classifier(
        base=base,
        labels=arguments["labels"],
        padding=about["padding"],
        scratch={**arguments, "vocabulary": about["vocabulary"], "tokens": about["tokens"]},
    )


def describe_network(plan: dict[str, Any], about: dict[str, Any]) -> tuple[ModuleType, dict[str, Any]]:
    """The module of a network that is not one of transformers, and what its `build_model` takes."""
    base = base_folder(plan)
    if base is None:
        return text_networks, _network_arguments(plan, about)
    if has_vectors(base):
        return vector_classifier, _vector_arguments(base, plan, about)
    labels = plan["model_arguments"]["labels"]
    return sentence_classifier, sentence_arguments(base, labels=labels, padding=about["padding"])


def _vector_arguments(base: Path, plan: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Of `vector_classifier.build_model`."""
    size = read_json(base / "config.json")["arguments"]
    return {
        "vocabulary": size["rows"],
        "width": size["dimensions"],
        "labels": len(plan["model_arguments"]["labels"]),
        "padding": about["padding"],
        "dropout": plan["model_arguments"]["dropout"],
    }


def _network_arguments(plan: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    """Of `text_networks.build_model`."""
    arguments = plan["model_arguments"]
    return {
        **{name: arguments[name] for name in ("network", "width", "depth", "dropout", "channels")},
        "vocabulary": about["vocabulary"],
        "labels": len(arguments["labels"]),
        "padding": about["padding"],
    }
