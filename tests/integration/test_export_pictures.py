"""What is seen in pictures, and pictures themselves, as ONNX: detectors, faces, generators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from recaster.core.errors import RecipeError
from recaster.core.files import write_json
from recaster.exporting.graphs import read_graph
from recaster.exporting.onnx import write_int8, write_onnx
from recaster.models import detector, generator, small_cnn
from recaster.models.detectors import load_detector
from recaster.models.face_embedder import embed, load_face_embedder
from recaster.models.generators import load_generator
from recaster.models.nms import pick_detections
from recaster.models.open_detectors import PROCESSOR, describe_detector_processor, fresh_open_detector

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_SHAPE = {"channels": 3, "height": 64, "width": 96}


def _write(folder: Path, model: nn.Module, arguments: dict[str, Any], **about: Any) -> Path:
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    write_json(
        folder / "config.json", {"arguments": arguments, "architecture": arguments.pop("named", "own")}
    )
    write_json(folder / "preprocessing.json", about)
    return folder


def _answer(path: Path, **inputs: NDArray[Any]) -> list[Any]:
    from onnxruntime import InferenceSession

    return InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)  # type: ignore[no-any-return]


def test_a_detectors_graph_finds_what_the_detector_finds(tmp_path: Path) -> None:
    torch.manual_seed(3)
    arguments = {"backbone": "small", "classes": 3, "features": 16, **_SHAPE}
    own: Any = detector.build_model(**arguments)  # type: ignore[arg-type]
    for head in own.heads:
        head.classes.weight.data *= 100  # else all points are as likely
    folder = _write(tmp_path / "own", own, arguments, kind="boxes", max_boxes=20, **_SHAPE)
    graph = read_graph(folder, None)
    told = write_onnx(graph, tmp_path / "model.onnx")
    assert set(told.largest) == {"boxes", "scores"} and told.agreement is None
    pixels = torch.rand(4, 3, 64, 96)
    boxes, scores = (torch.from_numpy(one) for one in _answer(tmp_path / "model.onnx", pixels=pixels.numpy()))
    model, most = load_detector(folder)
    wanted = model.eval().detect(pixels, overlap=0.6, least_score=0.0, most=most)
    # What is left to whoever uses the graph, as docs/howto/export.md says.
    found = pick_detections(boxes, scores, overlap=0.6, least_score=0.0, most=most, candidates=300)
    torch.testing.assert_close(found, wanted, atol=1e-2, rtol=0)
    with pytest.raises(RecipeError, match="Only classifiers are rounded"):
        write_int8(graph, tmp_path / "model.onnx", tmp_path / "int8.onnx")


def test_a_detector_whose_graph_would_answer_otherwise_is_refused(tmp_path: Path) -> None:
    model = fresh_open_detector(["cat", "dog", "owl"], features=32)
    model.network.save_pretrained(tmp_path)
    write_json(tmp_path / PROCESSOR, describe_detector_processor(model, height=64, width=96))
    write_json(tmp_path / "preprocessing.json", {"kind": "boxes", "max_boxes": 20, **_SHAPE})
    with pytest.raises(RecipeError, match="DETR family"):
        read_graph(tmp_path, None)


@pytest.mark.parametrize("flip", [True, pytest.param(False, marks=pytest.mark.campaign)])
def test_a_faces_graph_gives_the_gallerys_embedding(flip: bool, tmp_path: Path) -> None:
    arguments = {"hidden": 16, "dropout": 0.0, "activation": "relu", "classes": 24, **_SHAPE}
    network = small_cnn.build_model(**arguments)  # type: ignore[arg-type]
    named = {**arguments, "architecture": "small-cnn", "named": "small_cnn"}
    folder = _write(tmp_path / "faces", network, named, kind="image", **_SHAPE)
    write_json(folder / "verification.json", {"flip": flip, "threshold": 0.5})
    write_onnx(read_graph(folder, None), tmp_path / "model.onnx")
    pixels = torch.rand(3, 3, 64, 96)
    (embedding,) = _answer(tmp_path / "model.onnx", pixels=pixels.numpy())
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embedding, embed(load_face_embedder(folder), pixels, flip=flip), atol=1e-5)


@pytest.mark.parametrize("classes", [pytest.param(0, marks=pytest.mark.campaign), 4])
def test_a_generators_graph_makes_its_pictures(classes: int, tmp_path: Path) -> None:
    arguments = {
        "architecture": "dcgan", "classes": classes, "noise": 8, "hidden": 8,
        "channels": 1, "height": 16, "width": 16,
    }  # fmt: skip
    model = generator.build_model(**arguments)  # type: ignore[arg-type]
    folder = _write(tmp_path / "generator", model, {**arguments, "named": "generator"}, kind="noise")
    write_onnx(read_graph(folder, None), tmp_path / "model.onnx")
    noise, wanted_classes = torch.randn(6, 8), torch.arange(6) % max(classes, 1)
    inputs = {"noise": noise, **({"classes": wanted_classes} if classes else {})}
    (pixels,) = _answer(tmp_path / "model.onnx", **{name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        wanted = load_generator(folder)(noise, wanted_classes if classes else None)
    np.testing.assert_allclose(pixels, wanted, atol=1e-5)
