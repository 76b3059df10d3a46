"""A detector as an ordinary MLflow model, stored as this code beside its weights.

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

_BATCH_ROWS = 32
_OVERLAP, _LEAST_SCORE = 0.6, 0.3
"""Of non-maximum suppression; and the weakest detection that is told."""
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "torch")
"""What must be installed where the model is served."""


def describe(artifact: Path) -> tuple[ModelSignature, np.ndarray]:
    """What goes in and comes out of the model in folder `artifact`, and an example of the former."""
    image = json.loads((artifact / "preprocessing.json").read_text())
    shape = (image["height"], image["width"], image["channels"])
    outputs: list[ColSpec | TensorSpec] = [ColSpec("string", "boxes"), ColSpec("long", "count")]
    signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, *shape))]), Schema(outputs))
    return signature, np.full((1, *shape), image["minimum"], dtype=np.float32)


class BoxFinder(PythonModel):
    """Pictures in their source's pixel range in, a JSON list of boxes out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the network from the artifact's own code or by transformers, with its safetensors weights."""
        folder = Path(context.artifacts["model"])
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        names = config.get("id2label", {})
        self.labels: list[str] = config.get("labels") or [names[str(one)] for one in range(len(names))]
        self.image: dict[str, Any] = json.loads((folder / "preprocessing.json").read_text())
        own = (folder / "modeling.py").exists()
        self.model = (_load(folder, config) if own else _OpenNetwork(folder)).eval()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: np.ndarray,  # by its bare name, which MLflow leaves alone
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Boxes and their number for pictures `(rows, height, width, channels)`, a row a picture.

        `boxes` is JSON: `[{"label": "RBC", "score": 0.91, "box": [left, top, right, bottom]}]`, the best
        first, in pixels of the picture that went in.
        """
        pictures = self._to_pictures(model_input)
        found: list[list[dict[str, Any]]] = []
        for start in range(0, len(pictures), _BATCH_ROWS):
            detect: Any = self.model.detect
            told = detect(
                torch.from_numpy(pictures[start : start + _BATCH_ROWS]),
                overlap=_OVERLAP,
                least_score=_LEAST_SCORE,
                most=self.image["max_boxes"],
            )
            found += [self._name(row) for row in told.double().tolist()]
        return pd.DataFrame(
            {"boxes": [json.dumps(boxes) for boxes in found], "count": [len(boxes) for boxes in found]}
        )

    def _name(self, row: list[list[float]]) -> list[dict[str, Any]]:
        return [
            {
                "label": self.labels[int(number)],
                "score": round(score, 4),
                "box": [round(side, 2) for side in sides],
            }
            for *sides, score, number in row
            if score >= 0
        ]

    def _to_pictures(self, model_input: object) -> NDArray[np.float32]:
        pixels = np.asarray(model_input, dtype=np.float32)
        shape = (self.image["height"], self.image["width"], self.image["channels"])
        if pixels.shape[1:] != shape:
            raise ValueError(
                f"pictures have shape {pixels.shape[1:]}, wanted (height, width, channels) {shape}"
            )
        low, high = self.image["minimum"], self.image["maximum"]
        return np.ascontiguousarray(((pixels - low) / (high - low)).astype(np.float32).transpose(0, 3, 1, 2))


def _load(folder: Path, config: dict[str, Any]) -> nn.Module:
    spec = importlib.util.spec_from_file_location("modeling", folder / "modeling.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "modeling.py")
    modeling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(modeling)
    model: nn.Module = modeling.build_model(**config["arguments"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


class _OpenNetwork(nn.Module):
    """A detector of transformers over pictures in 0..1, normalised as its processor's file says."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModelForObjectDetection

        self.network = AutoModelForObjectDetection.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
        told = json.loads((folder / "preprocessor_config.json").read_text())
        self.softmax = told["image_processor_type"] == "YolosImageProcessor"
        self.mean, self.std = (
            torch.tensor(told[f"image_{name}"]).view(1, -1, 1, 1) for name in ("mean", "std")
        )

    @torch.no_grad()
    def detect(self, images: torch.Tensor, *, overlap: float, least_score: float, most: int) -> torch.Tensor:  # noqa: ARG002
        """As the network of `modeling.py`; nothing is suppressed, since queries do not repeat each other."""
        told = self.network(pixel_values=(images.expand(-1, 3, -1, -1) - self.mean) / self.std)
        if self.softmax:
            scores = told.logits.softmax(2)[:, :, :-1]
            scores = torch.where(scores == scores.amax(2, keepdim=True), scores, -1.0)
        else:
            scores = told.logits.sigmoid()
        score, place = scores.flatten(1).topk(min(most, scores.shape[1]), dim=1)
        queries, classes = place // scores.shape[2], place % scores.shape[2]
        height, width = images.shape[-2:]
        middle, half = told.pred_boxes[:, :, :2], told.pred_boxes[:, :, 2:] / 2
        sides = torch.cat([middle - half, middle + half], 2).clamp(0, 1)
        sides = sides * sides.new_tensor([width, height, width, height])
        boxes = sides.gather(1, queries[:, :, None].expand(-1, -1, 4))
        found = torch.cat([boxes, score[:, :, None], classes[:, :, None].to(score.dtype)], 2)
        return torch.where(score[:, :, None] >= least_score, found, -1.0)


mlflow.models.set_model(BoxFinder())
