"""Artifacts that take or make pictures as graphs to export, with batches to check them on.

classifier   pixels → logits
faces        pixels → embedding, of length 1; mirrored pictures are part of it where the model was measured so
boxes        pixels → boxes, scores: of each point, before the best of them are picked
generator    noise (, classes) → pixels
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.data.shards import Shard, read_shard
from recaster.exporting.onnx import LOGITS, LOGITS_BORNE, Graph, Inputs
from recaster.models.detector import POINT_COLUMNS, Detector
from recaster.models.detectors import load_detector
from recaster.models.face_embedder import embed, load_face_embedder
from recaster.models.generators import load_generator
from recaster.models.open_detectors import OpenDetector
from recaster.models.picture_models import load_picture_model

_BATCH_ROWS, _MOST_ROWS = 32, 1024
_BOX_ROWS, _MOST_BOX_ROWS = 4, 32
"""Pictures with boxes are large."""
_MADE_ROWS = (2, 1, 5, 3)
_PIXELS, _NOISE, _CLASSES = "pixels", "noise", "classes"
_FACES = "verification.json"
"""What an artifact of faces has beside a classifier's."""
_BORNE = {"embedding": 1e-4, "boxes": 0.01, "scores": 1e-3, _PIXELS: 1e-4}
"""Differences that may come of another order of float32 sums; of boxes in pixels."""


def read_picture_graph(artifact: Path, about: dict[str, Any], prepared: Path | None) -> Graph:
    """The graph of an artifact whose preprocessing is of kind image, boxes or noise; see `read_graph`."""
    if about["kind"] == "noise":
        return _read_generator(artifact)
    if about["kind"] == "boxes":
        return _read_detector(artifact, about, prepared)
    examples = _read_pictures(read_shard(prepared, "validation")) if prepared else _make_pictures(about)
    faces = (artifact / _FACES).exists()
    if faces:
        flip = read_json(artifact / _FACES)["flip"]
        module: nn.Module = _OfFaces(load_face_embedder(artifact), flip=flip)
    else:
        module = _OfPixels(load_picture_model(artifact))
    return Graph(
        module=module.eval(),
        examples=examples,
        free={_PIXELS: {0: "batch"}},
        outputs={"embedding": _BORNE["embedding"]} if faces else {LOGITS: LOGITS_BORNE},
        # Matrix products need no measured ranges, convolutions have no kernels without them.
        static="architecture" in read_json(artifact / "config.json"),
        real=prepared is not None,
    )


def _read_detector(artifact: Path, about: dict[str, Any], prepared: Path | None) -> Graph:
    from recaster.data.box_shards import read_box_shard

    model, _ = load_detector(artifact)
    if isinstance(model, OpenDetector):
        raise RecipeError(
            "Detectors of the DETR family have no ONNX form here: the graphs that torch 2.13 writes of them "
            "answer otherwise.",
            where=str(artifact),
            value=model.config.model_type,
            repair="use --format hf, and transformers' own tools",
        )
    if prepared:
        shard, _ = read_box_shard(prepared, "validation")
        examples = _read_pictures(shard, rows=_BOX_ROWS, most=_MOST_BOX_ROWS)
    else:
        examples = _make_pictures(about)
    return Graph(
        module=_OfBoxes(model).eval(),
        examples=examples,
        free={_PIXELS: {0: "batch"}},
        outputs={name: _BORNE[name] for name in ("boxes", "scores")},
        static=True,
        real=prepared is not None,
    )


def _read_generator(artifact: Path) -> Graph:
    """Of noise there are no rows of data: what it is measured on is drawn too."""
    arguments = read_json(artifact / "config.json")["arguments"]
    chosen, examples = np.random.default_rng(0), []
    for rows in _MADE_ROWS:
        batch: dict[str, Any] = {_NOISE: chosen.standard_normal((rows, arguments["noise"]), dtype=np.float32)}
        if arguments["classes"]:
            batch[_CLASSES] = chosen.integers(0, arguments["classes"], rows)
        examples.append(batch)
    return Graph(
        module=_OfNoise(load_generator(artifact)).eval(),
        examples=examples,
        free={name: {0: "batch"} for name in examples[0]},
        outputs={_PIXELS: _BORNE[_PIXELS]},
        static=True,
        real=False,
    )


def _read_pictures(shard: Shard, *, rows: int = _BATCH_ROWS, most: int = _MOST_ROWS) -> list[Inputs]:
    """A split, up to so many of it."""
    end = min(most, len(shard.labels))
    return [{_PIXELS: shard.scaled(slice(start, min(start + rows, end)))} for start in range(0, end, rows)]


def _make_pictures(about: dict[str, Any]) -> list[Inputs]:
    """Noise."""
    chosen, shape = np.random.default_rng(0), (about["channels"], about["height"], about["width"])
    return [{_PIXELS: chosen.random((rows, *shape), dtype=np.float32)} for rows in _MADE_ROWS]


class _OfPixels(nn.Module):
    """Any classifier of pictures; what it does to them first is part of the graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `(batch, labels)`."""
        logits: Tensor = self.network(pixels)
        return logits


class _OfFaces(nn.Module):
    """An embedder as the gallery uses it."""

    def __init__(self, network: nn.Module, *, flip: bool) -> None:
        super().__init__()
        self.network, self.flip = network, flip

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings `(batch, numbers)` of length 1."""
        return embed(self.network, pixels, flip=self.flip)


class _OfBoxes(nn.Module):
    """A detector before its best boxes are picked."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Left, top, right, bottom in pixels `(batch, places, 4)`; scores `(batch, places, classes)`."""
        seen = self.network(pixels)
        return seen[:, :, 3:POINT_COLUMNS], seen[:, :, POINT_COLUMNS:].sigmoid()


class _OfNoise(nn.Module):
    """A generator."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        """Pictures `(batch, channels, height, width)`, 0 to 1."""
        pictures: Tensor = self.network(noise, classes)
        return pictures
