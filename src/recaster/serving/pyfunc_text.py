"""A text classifier as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema, TensorSpec
from numpy.typing import NDArray

import mlflow

_BATCH_ROWS = 64
_TOLD, _SEPARATOR = 0.5, "|"
"""Of records with several labels: the probability from which on one is told; what stands between them."""
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "tokenizers", "torch", "transformers")
"""What must be installed where the model is served."""
Answer = Callable[[list[str]], torch.Tensor]
"""Logits `(rows, labels)` of texts."""


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    labels = _labels(json.loads((artifact / "config.json").read_text()))
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec("string", "label"),
        *(ColSpec("double", f"p_{label}") for label in labels),
    ]
    signature = ModelSignature(Schema([ColSpec("string", "text")]), Schema(outputs))
    return signature, pd.DataFrame({"text": ["a text to classify"]})


class TextClassifier(PythonModel):
    """Texts in, a label and a probability a label out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load tokenizer and weights from the artifact."""
        folder = Path(context.artifacts["model"])
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        told = json.loads((folder / "preprocessing.json").read_text())
        longest, self.several = told["max_tokens"], told.get("several_labels", False)
        self.outside, self.least = told.get("out_of_scope"), told.get("least_probability", 0.0)
        self.labels = _labels(config)
        self.answer = (_open_vectors if "arguments" in config else _open_network)(folder, config, longest)

    @torch.no_grad()
    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Label and probabilities of the texts in column `text`, a row a text."""
        texts = [str(text) for text in model_input["text"]]
        pieces = [
            self._to_probabilities(self.answer(texts[start : start + _BATCH_ROWS])).numpy()
            for start in range(0, len(texts), _BATCH_ROWS)
        ]
        probabilities = np.concatenate(pieces) if pieces else np.zeros((0, len(self.labels)))
        frame = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in self.labels])
        frame.insert(0, "label", [self._name(row) for row in probabilities])
        return frame

    def _name(self, probabilities: NDArray[np.float64]) -> str:
        """The likeliest label, or all that are likelier there than not; of an unsure answer that for texts
        out of scope.
        """
        if self.outside and probabilities.max() < self.least:
            return str(self.outside)
        if not self.several:
            return self.labels[int(probabilities.argmax())]
        return _SEPARATOR.join(self.labels[number] for number in np.flatnonzero(probabilities >= _TOLD))

    def _to_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double().sigmoid() if self.several else logits.double().softmax(1)


def _labels(config: dict[str, Any]) -> list[str]:
    names: dict[str, str] = config.get("id2label", {})
    labels: list[str] = config.get("labels") or [names[str(number)] for number in range(len(names))]
    return labels


def _open_network(folder: Path, config: dict[str, Any], longest: int) -> Answer:  # noqa: ARG001
    """A model of the transformers library."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32
    ).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    def answer(texts: list[str]) -> torch.Tensor:
        encoded = tokenizer(texts, truncation=True, max_length=longest, padding=True, return_tensors="pt")
        logits: torch.Tensor = model(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
        ).logits
        return logits

    return answer


def _open_vectors(folder: Path, config: dict[str, Any], longest: int) -> Answer:
    """A model with its own source beside it, over the tokens of the tokenizers library."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "modeling.py")
    modeling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(modeling)
    model = modeling.build_model(**config["arguments"]).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding(pad_id=config["arguments"]["padding"])

    def answer(texts: list[str]) -> torch.Tensor:
        rows = [encoded.ids for encoded in tokenizer.encode_batch(texts)]
        logits: torch.Tensor = model(torch.tensor(rows))
        return logits

    return answer


mlflow.models.set_model(TextClassifier())
