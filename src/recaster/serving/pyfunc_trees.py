"""A parser as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema
from safetensors.torch import load_file

import mlflow

PACKAGES = ("mlflow", "pandas", "safetensors", "tokenizers", "torch")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:  # noqa: ARG001 - one shape for all
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    outputs = Schema([ColSpec("string", "conllu"), ColSpec("long", "sentences"), ColSpec("long", "words")])
    signature = ModelSignature(Schema([ColSpec("string", "text")]), outputs)
    return signature, pd.DataFrame({"text": ["The cat sees a dog."]})


class TreeFinder(PythonModel):
    """Raw text, or sentences in CoNLL-U, in; sentences with their trees in CoNLL-U out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load networks and vocabulary from the artifact."""
        self.parser = open_parser(Path(context.artifacts["model"]))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """CoNLL-U of the text in column `text`, with its sentences and words counted, a row a text."""
        read = [self.parser.read(str(text)) for text in model_input["text"]]
        ends: list[int] = []
        for sentences in read:
            ends.append((ends[-1] if ends else 0) + len(sentences))
        # All rows together, so that single sentences are parsed in batches too.
        parsed = self.parser.parse_sentences([one for sentences in read for one in sentences])
        rows = []
        for sentences, end in zip(read, ends, strict=True):
            own = parsed[end - len(sentences) : end]
            words = sum(len(sentence.words) for sentence in own)
            text = self.modeling.write_sentences(own)
            rows.append({"conllu": text, "sentences": len(own), "words": words})
        return pd.DataFrame(rows, columns=["conllu", "sentences", "words"])

    @property
    def modeling(self) -> Any:
        """The artifact's own code."""
        return sys.modules[type(self.parser).__module__]


def open_parser(folder: Path) -> Any:
    """The parser of an artifact's folder, from its own code."""
    name = f"modeling_{folder.resolve().as_posix().replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(name, folder / "modeling.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "modeling.py")
    modeling = importlib.util.module_from_spec(spec)
    sys.modules[name] = modeling  # its dataclasses look their module up
    spec.loader.exec_module(modeling)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    about: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
    vocabulary: dict[str, Any] = json.loads((folder / "vocabulary.json").read_text())
    tokenizer = folder / "tokenizer.json"
    pieces = _open_pieces(tokenizer) if tokenizer.exists() else None
    parser = modeling.assemble(config["arguments"], vocabulary, about, pieces=pieces)
    parser.model.load_state_dict(load_file(folder / "model.safetensors"))
    parser.segmenter.load_state_dict(load_file(folder / "segmenter.safetensors"))
    return parser


def _open_pieces(file: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda form: tokenizer.encode(form, add_special_tokens=False).ids


mlflow.models.set_model(TreeFinder())
