"""A text classifier as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema, TensorSpec
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import mlflow

_BATCH_ROWS = 64
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "tokenizers", "torch", "transformers")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    names: dict[str, str] = json.loads((artifact / "config.json").read_text())["id2label"]
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec("string", "label"),
        *(ColSpec("double", f"p_{label}") for label in names.values()),
    ]
    signature = ModelSignature(Schema([ColSpec("string", "text")]), Schema(outputs))
    return signature, pd.DataFrame({"text": ["a text to classify"]})


class TextClassifier(PythonModel):
    """Texts in, a label and a probability a label out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load tokenizer and weights from the artifact."""
        folder = Path(context.artifacts["model"])
        told: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        self.longest = told["max_tokens"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        ).eval()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.labels = [self.model.config.id2label[number] for number in range(self.model.config.num_labels)]

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
            self._probabilities(texts[start : start + _BATCH_ROWS])
            for start in range(0, len(texts), _BATCH_ROWS)
        ]
        probabilities = np.concatenate(pieces) if pieces else np.zeros((0, len(self.labels)))
        frame = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in self.labels])
        frame.insert(0, "label", [self.labels[number] for number in probabilities.argmax(1)])
        return frame

    def _probabilities(self, texts: list[str]) -> np.ndarray:
        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.longest, padding=True, return_tensors="pt"
        )
        tokens = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        probabilities: np.ndarray = self.model(**tokens).logits.softmax(1).double().numpy()
        return probabilities


mlflow.models.set_model(TextClassifier())
