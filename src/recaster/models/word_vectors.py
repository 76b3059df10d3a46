"""Text classifiers of this package: from a base with static word vectors, and out of an artifact's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from recaster.core.files import read_json
from recaster.models import sentence_classifier, text_networks, vector_classifier, word_table
from recaster.models.loading import LoadReport, load_state, read_state

_MODULES: dict[str, ModuleType] = {
    "vector_classifier": vector_classifier,
    "text_networks": text_networks,
    "sentence_classifier": sentence_classifier,
}


class FromVectors(vector_classifier.VectorClassifier):
    """The classifier, and what became of the base's table."""

    report: LoadReport


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorReport:
    """How many words of a vocabulary began with given vectors."""

    known: int
    words: int

    def to_text(self) -> str:
        """One line for people."""
        return f"vectors for {self.known:,} of {self.words:,} words ({self.known / self.words:.1%})"


def begin_with_vectors(model: text_networks.TextNetwork, folder: Path) -> text_networks.TextNetwork:
    """`model` with the vectors that the step in `folder` has put into its vocabulary's order."""
    table, known = (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("vectors", "known"))
    model.begin_with(table, known)
    # torch's modules take only tensors and modules for what they are; this one is told to people.
    model.report = VectorReport(known=int(known.sum()), words=len(known))  # type: ignore[assignment]
    return model


def has_vectors(base: Path) -> bool:
    """Whether the base in this folder is a table of word vectors."""
    return bool(read_json(base / "config.json").get("architecture") == "static-vectors")


def build_from_vectors(base: Path, **arguments: Any) -> nn.Module:
    """A classifier whose vectors are the base's, float32; its head is fresh.

    Args:
        arguments: of `vector_classifier.build_model`.
    """
    model = FromVectors(**arguments)
    table = read_json(base / "config.json")["arguments"]["tensor"]
    state = {name: value.float() for name, value in read_state(base).items()}
    model.report = load_state(model, state, rename=lambda name: "vectors.weight" if name == table else None)
    return model


def load_text_network(artifact: Path) -> nn.Module:
    """The model of an exported folder; the copy of its source there is not run."""
    config = read_json(artifact / "config.json")
    module = _MODULES[config["architecture"]]
    model: nn.Module = module.build_model(**config["arguments"])
    model.load_state_dict(read_state(artifact))
    return model.eval()


def open_lexicon(artifact: Path) -> word_table.Lexicon:
    """The words and vectors of an exported folder of the workload word-embedding."""
    table = word_table.build_model(**read_json(artifact / "config.json")["arguments"])
    table.load_state_dict(read_state(artifact))
    return word_table.Lexicon(table.eval().requires_grad_(False), read_json(artifact / "vocabulary.json"))
