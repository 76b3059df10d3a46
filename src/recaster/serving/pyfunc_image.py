"""An image classifier as an ordinary MLflow model, stored as this code beside its weights.

Imports nothing of Recaster: the logged model must work where Recaster is not installed.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema, TensorSpec
from numpy.typing import NDArray
from safetensors.torch import load_file

import mlflow

_BATCH_ROWS = 256
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "torch")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, np.ndarray]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    image = json.loads((artifact / "preprocessing.json").read_text())
    shape = (image["height"], image["width"], image["channels"])
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec("string", "label"),
        *(
            ColSpec("double", f"p_{label}")
            for label in json.loads((artifact / "config.json").read_text())["labels"]
        ),
    ]
    signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]), Schema(outputs))
    return signature, np.full((1, *shape), image["minimum"], dtype=np.float32)


class ImageClassifier(PythonModel):
    """Pictures in their source's pixel range in, a label and a probability a label out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network from the artifact's own code and load its safetensors weights."""
        folder = Path(context.artifacts["model"])
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.image: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(folder / "modeling.py")
        modeling = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modeling)
        self.model = modeling.build_model(**self.config["arguments"])
        self.model.load_state_dict(load_file(folder / "model.safetensors"))
        self.model.eval()

    @torch.no_grad()
    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: np.ndarray,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Label and probabilities of pictures `(rows, height, width, channels)`, a row a picture."""
        pictures = self._to_pictures(model_input)
        pieces = [
            self.model(torch.from_numpy(pictures[start : start + _BATCH_ROWS])).softmax(1)
            for start in range(0, len(pictures), _BATCH_ROWS)
        ]
        labels = self.config["labels"]
        probabilities = torch.cat(pieces).double().numpy() if pieces else np.zeros((0, len(labels)))
        frame = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in labels])
        frame.insert(0, "label", [labels[number] for number in probabilities.argmax(1)])
        return frame

    def _to_pictures(self, model_input: object) -> NDArray[np.float32]:
        pixels = np.asarray(model_input, dtype=np.float32)
        shape = (self.image["height"], self.image["width"], self.image["channels"])
        if pixels.shape[1:] == shape[:2] and shape[2] == 1:
            pixels = pixels[..., None]
        if pixels.shape[1:] != shape:
            raise ValueError(
                f"pictures have shape {pixels.shape[1:]}, wanted (height, width, channels) {shape}"
            )
        low, high = self.image["minimum"], self.image["maximum"]
        return np.ascontiguousarray(((pixels - low) / (high - low)).astype(np.float32).transpose(0, 3, 1, 2))


mlflow.models.set_model(ImageClassifier())
