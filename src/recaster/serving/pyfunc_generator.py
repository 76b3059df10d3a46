"""A generator of pictures as an ordinary MLflow model, stored as this code beside its weights.

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

import mlflow

_BATCH_ROWS = 64
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "torch")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, pd.DataFrame]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    image = json.loads((artifact / "preprocessing.json").read_text())
    labels = json.loads((artifact / "config.json").read_text())["labels"]
    inputs: list[ColSpec | TensorSpec] = [ColSpec("long", "seed")]
    example: dict[str, list[Any]] = {"seed": [1]}
    if labels:
        inputs.append(ColSpec("string", "label"))
        example["label"] = [labels[0]]
    shape = (-1, image["height"], image["width"], image["channels"])
    outputs = Schema([TensorSpec(np.dtype("float32"), shape)])
    return ModelSignature(Schema(inputs), outputs), pd.DataFrame(example)


class PictureGenerator(PythonModel):
    """Seeds, with labels where it is conditional, in; pictures in their source's pixel range out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network from the artifact's own code, with its safetensors weights."""
        folder = Path(context.artifacts["model"])
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.labels: list[str] = config["labels"]
        self.noise = int(config["arguments"]["noise"])
        self.image: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        self.model = _load_own(folder, config["arguments"]).eval()

    @torch.no_grad()
    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Pictures `(rows, height, width, channels)`, a row a picture: the same for the same seed and label.

        Raises:
            ValueError: a seed below 0, or a label that the model does not know.
        """
        seeds = [int(seed) for seed in model_input["seed"]]
        if any(seed < 0 for seed in seeds):
            raise ValueError(f"seeds are whole numbers from 0, not {min(seeds)}")
        classes = self._to_classes(model_input)
        drawn = [np.random.default_rng(seed).standard_normal(self.noise, dtype=np.float32) for seed in seeds]
        noise = torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, self.noise)
        pieces = [
            self.model(
                noise[start : start + _BATCH_ROWS],
                None if classes is None else classes[start : start + _BATCH_ROWS],
            )
            for start in range(0, len(seeds), _BATCH_ROWS)
        ]
        size = (0, self.image["channels"], self.image["height"], self.image["width"])
        pictures = (torch.cat(pieces) if pieces else torch.zeros(size)).permute(0, 2, 3, 1).numpy()
        low, high = self.image["minimum"], self.image["maximum"]
        return np.ascontiguousarray(low + (high - low) * pictures, dtype=np.float32)

    def _to_classes(self, model_input: pd.DataFrame) -> torch.Tensor | None:
        if not self.labels:
            return None
        asked = [str(label) for label in model_input["label"]]
        if unknown := sorted(set(asked) - set(self.labels)):
            raise ValueError(f"unknown label {unknown[0]!r}; known: {', '.join(self.labels)}")
        return torch.tensor([self.labels.index(label) for label in asked], dtype=torch.int64)


def _load_own(folder: Path, arguments: dict[str, Any]) -> nn.Module:
    spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "modeling.py")
    modeling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(modeling)
    model: nn.Module = modeling.build_model(**arguments)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


mlflow.models.set_model(PictureGenerator())
