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
from torch import nn
from torch.nn import functional as F

import mlflow

_BATCH_ROWS = 256
_TOLD, _SEPARATOR = 0.5, "|"
"""Of records with several labels: the probability from which on one is told; what stands between them."""
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "torch")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, np.ndarray]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    image = json.loads((artifact / "preprocessing.json").read_text())
    shape = (image["height"], image["width"], image["channels"])
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec("string", "label"),
        *(ColSpec("double", f"p_{label}") for label in _read_labels(artifact)),
    ]
    signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]), Schema(outputs))
    return signature, np.full((1, *shape), image["minimum"], dtype=np.float32)


def _read_labels(artifact: Path) -> list[str]:
    config: dict[str, Any] = json.loads((artifact / "config.json").read_text())
    if "labels" in config:
        return list(config["labels"])
    names: dict[str, str] = config["id2label"]
    return [names[str(number)] for number in range(len(names))]


class ImageClassifier(PythonModel):
    """Pictures in their source's pixel range in, a label and a probability a label out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network from the artifact's own code or by transformers, with its safetensors weights."""
        folder = Path(context.artifacts["model"])
        self.labels = _read_labels(folder)
        self.image: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        self.several = self.image.get("several_labels", False)
        own = (folder / "modeling.py").exists()
        self.model = (_load_own(folder) if own else _OpenNetwork(folder)).eval()

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
            self._answer(torch.from_numpy(pictures[start : start + _BATCH_ROWS]))
            for start in range(0, len(pictures), _BATCH_ROWS)
        ]
        labels = self.labels
        probabilities = torch.cat(pieces).numpy() if pieces else np.zeros((0, len(labels)))
        frame = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in labels])
        frame.insert(0, "label", [self._name(row) for row in probabilities])
        return frame

    def _answer(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities, means over the picture and those of its views that the evaluation had too."""
        views, shift = [images], self.image.get("shift_pixels", 0)
        if shift:
            wide, (height, width) = F.pad(images, [shift] * 4, mode="replicate"), images.shape[2:]
            for top, left in ((0, shift), (2 * shift, shift), (shift, 0), (shift, 2 * shift)):
                views.append(wide[:, :, top : top + height, left : left + width])
        if self.image.get("flip"):
            views += [view.flip(3) for view in views]
        return torch.stack([self._to_probabilities(self.model(view)) for view in views]).mean(0)

    def _name(self, probabilities: NDArray[np.float64]) -> str:
        """The likeliest label, or all that are likelier there than not."""
        if not self.several:
            return self.labels[int(probabilities.argmax())]
        return _SEPARATOR.join(self.labels[number] for number in np.flatnonzero(probabilities >= _TOLD))

    def _to_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.double().sigmoid() if self.several else logits.double().softmax(1)

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


def _load_own(folder: Path) -> nn.Module:
    spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "modeling.py")
    modeling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(modeling)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    model: nn.Module = modeling.build_model(**config["arguments"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


class _OpenNetwork(nn.Module):
    """A model of transformers over pictures in 0..1, brought into shape as its processor's file says."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModelForImageClassification

        self.network = AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
        told = json.loads((folder / "preprocessor_config.json").read_text())
        self.size = told.get("size")
        self.mean, self.std = (
            torch.tensor(told[f"image_{name}"]).view(1, -1, 1, 1) for name in ("mean", "std")
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images.expand(-1, 3, -1, -1)
        if self.size and images.shape[-2:] != (size := (self.size["height"], self.size["width"])):
            smaller = min(images.shape[-2:]) > size[0]
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smaller)
        logits: torch.Tensor = self.network(pixel_values=(images - self.mean) / self.std).logits
        return logits


mlflow.models.set_model(ImageClassifier())
