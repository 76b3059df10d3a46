"""Word vectors as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array
from safetensors.torch import load_file

import mlflow

PACKAGES = ("mlflow", "pandas", "safetensors", "torch")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    outputs = Schema(
        [
            ColSpec("string", "nearest"),
            ColSpec("long", "known"),
            ColSpec(Array("double"), "cosines"),
            ColSpec(Array("double"), "vector"),
        ]
    )
    asked = ParamSchema([ParamSpec("neighbours", "long", 10)])
    words = json.loads((artifact / "vocabulary.json").read_text(encoding="utf-8"))["words"]
    return ModelSignature(Schema([ColSpec("string", "text")]), outputs, asked), pd.DataFrame(
        {"text": words[:1]}
    )


class WordVectors(PythonModel):
    """Words or texts in, their vectors and nearest words out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the table from the artifact's own code, with its safetensors weights."""
        folder = Path(context.artifacts["model"])
        spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(folder / "modeling.py")
        modeling = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modeling)
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        table = modeling.build_model(**config["arguments"])
        table.load_state_dict(load_file(folder / "model.safetensors"))
        vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        self.lexicon: Any = modeling.Lexicon(table.eval(), vocabulary)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """A row for each text in column `text`.

        `nearest`: the words nearest to the text's mean vector, with a space between, its own words left out;
        empty where none of the text's words has a vector. `known`: how many have one. `cosines` are those of
        `nearest`.
        """
        count = int((params or {}).get("neighbours", 10))
        return pd.DataFrame([self._answer(str(text), count) for text in model_input["text"]])

    def _answer(self, text: str, count: int) -> dict[str, Any]:
        vector, known = self.lexicon.embed(text)
        near = self.lexicon.nearest(vector, count, leave_out=known)
        return {
            "nearest": " ".join(word for word, _ in near),
            "known": len(known),
            "cosines": [value for _, value in near],
            "vector": vector.double().tolist(),
        }


mlflow.models.set_model(WordVectors())
