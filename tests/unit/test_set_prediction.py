"""The set-prediction loss and the open detectors against transformers' own, on small random networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recaster.core.errors import RecipeError
from recaster.models.open_detectors import build_open_detector
from recaster.models.set_prediction import set_prediction_loss

LABELS = ["disc", "square", "triangle"]
SIDE = 64


def _config(kind: str) -> Any:
    from transformers import AutoConfig, RTDetrResNetConfig

    if kind == "yolos":
        return AutoConfig.for_model(
            "yolos",
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=[SIDE, SIDE],
            patch_size=16,
            num_detection_tokens=12,
            num_labels=5,
        )
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
        layer_type="basic",
    )
    return AutoConfig.for_model(
        kind,
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 16, 16],
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        d_model=32,
        num_queries=12,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_labels=5,
    )


def _base(folder: Path, kind: str) -> Path:
    from transformers import AutoModelForObjectDetection

    torch.manual_seed(0)
    AutoModelForObjectDetection.from_config(_config(kind)).save_pretrained(folder)
    return folder


def _targets() -> Tensor:
    """Three boxes, and two; what fills up stands first in the second row."""
    return torch.tensor(
        [
            [[0.0, 4, 6, 30, 40], [2, 33, 8, 60, 30], [1, 10, 44, 30, 60]],
            [[-1, -1, -1, -1, -1], [1, 2, 2, 20, 20], [2, 30, 30, 62, 50]],
        ]
    )


def _labels_of(row: Tensor) -> list[dict[str, Tensor]]:
    real = row[row[:, 0] >= 0]
    sides = real[:, 1:] / SIDE
    boxes = torch.cat([(sides[:, :2] + sides[:, 2:]) / 2, sides[:, 2:] - sides[:, :2]], 1)
    return [{"class_labels": real[:, 0].long(), "boxes": boxes}]


@pytest.mark.parametrize("kind", ["yolos", "rt_detr"])
def test_loss_and_gradients_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    model = build_open_detector(_base(tmp_path, kind), LABELS)
    for module in model.modules():  # the same statistics for one picture as for two
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm | torch.nn.Dropout):
            module.eval()
    images, targets = torch.rand(2, 3, SIDE, SIDE), _targets()
    ours, theirs = torch.zeros(()), torch.zeros(())
    for picture, row in zip(images, targets, strict=True):
        ours = ours + set_prediction_loss(model(picture[None]), row[None])
        told = model.network(pixel_values=model.preprocess(picture[None]), labels=_labels_of(row))
        terms = {name: value for name, value in told.loss_dict.items() if _shared(name)}
        assert len(terms) in {3, 9}
        weights = {"loss_bbox": 5, "loss_giou": 2} if kind == "yolos" else {}
        total = sum(weights.get(name, 1) * value for name, value in terms.items())
        theirs = theirs + total * int((row[:, 0] >= 0).sum())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    parameters = [value for value in model.parameters() if value.requires_grad]
    own, other = (
        torch.cat([one.flatten() for one in torch.autograd.grad(loss, parameters, materialize_grads=True)])
        for loss in (ours, theirs)
    )
    assert other.norm() > 0
    assert (own - other).norm() <= 1e-5 * other.norm()


def _shared(name: str) -> bool:
    return name.startswith(("loss_ce", "loss_vfl", "loss_bbox", "loss_giou")) and "dn" not in name


@pytest.mark.parametrize("kind", ["yolos", "rt_detr"])
def test_micro_batches_add_up_and_empty_pictures_count(tmp_path: Path, kind: str) -> None:
    model = build_open_detector(_base(tmp_path, kind), LABELS).eval()
    images, targets = torch.rand(3, 1, SIDE, SIDE), torch.full((3, 3, 5), -1.0)
    targets[:2] = _targets()
    whole = set_prediction_loss(model(images), targets)
    parts = [set_prediction_loss(model(images[row : row + 1]), targets[row : row + 1]) for row in range(3)]
    torch.testing.assert_close(whole, torch.stack(parts).sum(), rtol=1e-4, atol=1e-4)
    assert parts[2] > 0


def test_what_became_of_the_base_is_told(tmp_path: Path) -> None:
    report = build_open_detector(_base(tmp_path, "yolos"), LABELS).report
    assert report is not None
    fresh = [name.split(" ")[0] for name in report.reinitialised]
    assert fresh and all(name.startswith("class_labels_classifier.layers.2") for name in fresh)
    assert len(report.loaded) > 20


def test_other_families_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "conditional_detr"}')
    with pytest.raises(RecipeError, match="no detector of a family"):
        build_open_detector(tmp_path, LABELS)


@pytest.mark.parametrize("kind", ["yolos", "rt_detr", "d_fine"])
def test_boxes_are_those_of_transformers_own_processor(tmp_path: Path, kind: str) -> None:
    import json

    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    from recaster.models.open_detectors import PROCESSOR, describe_detector_processor
    from recaster.serving.pyfunc_boxes import _OpenNetwork

    model = build_open_detector(_base(tmp_path / "base", kind), LABELS).eval()
    folder = tmp_path / "out"
    model.network.save_pretrained(folder)  # type: ignore[operator]
    told = describe_detector_processor(model, height=SIDE, width=SIDE)
    (folder / PROCESSOR).write_text(json.dumps(told))
    pictures = torch.randint(0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    images = pictures.permute(0, 3, 1, 2).float() / 255
    found = model.detect(images, overlap=0.6, least_score=0.01, most=12)
    served = _OpenNetwork(folder).eval().detect(images, overlap=0.6, least_score=0.01, most=12)
    torch.testing.assert_close(served, found, rtol=1e-4, atol=1e-3)
    network = AutoModelForObjectDetection.from_pretrained(folder).eval()
    assert list(network.config.id2label.values()) == LABELS
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        answer = network(**processor(list(pictures.numpy()), return_tensors="pt"))
    sizes = torch.tensor([[SIDE, SIDE]] * 2)
    for own, theirs in zip(found, processor.post_process_object_detection(answer, 0.01, sizes), strict=True):
        order = theirs["scores"].argsort(descending=True)[:12]
        real = own[own[:, 4] >= 0]
        torch.testing.assert_close(real[:, 4], theirs["scores"][order], rtol=1e-3, atol=1e-3)
        wanted = theirs["boxes"][order].clamp(0, SIDE)
        torch.testing.assert_close(real[:, :4], wanted, rtol=1e-3, atol=1e-2)
