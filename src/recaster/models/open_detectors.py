"""Detectors of the DETR family, by the transformers library, behind what the training loop knows.

yolos               a plain vision transformer; a class for nothing, one layer answers
rt_detr  d_fine     convolutions and a decoder; a probability for each class, each layer is trained to answer
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.models.loading import LoadReport
from recaster.models.nms import pick_detections
from recaster.models.open_models import OpenModel, load_network
from recaster.models.picture_input import Preprocess
from recaster.models.set_prediction import pack_answers, unpack_answers

PROCESSOR = "preprocessor_config.json"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIGMOID = ("rt_detr", "rt_detr_v2", "d_fine")
FAMILIES = ("yolos", *_SIGMOID)
"""`model_type` of what is supported; others of transformers' detectors have losses of their own."""
FRESH = ("rt-detr-tiny",)
"""What may follow `scratch:`."""
_HEADS = {
    "yolos": ("class_labels_classifier", "bbox_predictor"),
    **dict.fromkeys(
        _SIGMOID,
        (
            "model.enc_score_head",
            "model.enc_bbox_head",
            "model.decoder.class_embed",
            "model.decoder.bbox_embed",
        ),
    ),
}


class OpenDetector(OpenModel):
    """Boxes in each picture, from a set of queries."""

    def __init__(
        self, network: nn.Module, *, processor: Mapping[str, Any], report: LoadReport | None = None
    ) -> None:
        super().__init__(network, report)
        normal = processor.get("do_normalize", True)
        self.preprocess = Preprocess(
            size=None,  # these networks take any size: the recipe's
            mean=(processor.get("image_mean") or _MEAN) if normal else (0.0, 0.0, 0.0),
            std=(processor.get("image_std") or _STD) if normal else (1.0, 1.0, 1.0),
        )

    @property
    def sigmoid(self) -> bool:
        """Each class has a probability of its own, and there is none for nothing."""
        return self.config.model_type in _SIGMOID

    def forward(self, images: Tensor) -> Tensor:
        """What the queries say of pictures `(rows, channels, height, width)` in 0..1.

        Returns:
            See `models.set_prediction`; in training with the answers of inner layers, where there are some.
        """
        size = (images.shape[-2], images.shape[-1])
        told = self.network(pixel_values=self.preprocess(images))
        layers = [(told.pred_boxes, told.logits)]
        if self.training and self.sigmoid:
            inner = told.intermediate_reference_points[:, :-1], told.intermediate_logits[:, :-1]
            layers += zip(*(one.unbind(1) for one in inner), strict=True)
            layers.append((told.enc_topk_bboxes, told.enc_topk_logits))
        parts = [
            pack_answers(boxes, logits, size=size, layer=number, sigmoid=self.sigmoid)
            for number, (boxes, logits) in enumerate(layers)
        ]
        return torch.cat(parts, 1)

    @torch.no_grad()
    def detect(self, images: Tensor, *, overlap: float, least_score: float, most: int) -> Tensor:  # noqa: ARG002
        """Boxes `(rows, most, 6)` of pictures in 0..1: box in pixels, score, class number; -1 fills up.

        Queries do not answer for one box twice, so that nothing is suppressed, whatever `overlap` says.
        """
        answers = unpack_answers(self(images))[0]
        scores, size = answers.scores(), answers.size
        if not answers.sigmoid:  # a query has one class
            scores = torch.where(scores == scores.amax(2, keepdim=True), scores, -1.0)
        return pick_detections(
            answers.boxes.clamp(min=0).minimum(size),
            scores,
            overlap=2.0,  # more than there can be
            least_score=least_score,
            most=most,
            candidates=scores.shape[1],
        )

    def head_names(self) -> list[str]:
        """The modules that say classes and boxes."""
        return [f"network.{name}" for name in _HEADS[self.config.model_type]]

    def adapter_targets(self) -> list[str]:
        """The attention's projections."""
        if self.config.model_type == "yolos":
            return ["query", "value"]
        return ["q_proj", "v_proj", "value_proj"]


def build_open_detector(base: Path, labels: Sequence[str]) -> OpenDetector:
    """A detector of `labels` from the folder of a transformers model.

    Raises:
        RecipeError: transformers has no detector of this architecture, or it is of no family known here.
        BaseModelError: none of the weights fits.
    """
    from transformers import AutoModelForObjectDetection

    config = json.loads((base / "config.json").read_bytes())
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise RecipeError(
            "The base is no detector of a family that is known here.",
            where="model.base",
            value=f"model_type {kind}",
            repair=f"use a base of {', '.join(FAMILIES)}, or MobileNetV2 with ImageNet weights",
        )
    options: dict[str, Any] = {}
    if kind in _SIGMOID:  # points of no fixed size of picture; targets are not given to the network
        options = {"anchor_image_size": None, "num_denoising": 0}
    network, report = load_network(AutoModelForObjectDetection, base, **_names(labels), **options)
    return OpenDetector(network, processor=_read_processor(base), report=report)


def fresh_open_detector(labels: Sequence[str], *, features: int) -> OpenDetector:
    """A small RT-DETR with fresh weights, about a million of them with 64 features, for simple pictures.

    Args:
        features: of each query; a multiple of 32.

    Raises:
        ValueError: it is not.
    """
    from transformers import AutoConfig, AutoModelForObjectDetection, RTDetrResNetConfig

    if features % 32:
        raise ValueError(f"a width of {features}: it must be a multiple of 32")
    stages = [24, 32, 64, 96]
    backbone = RTDetrResNetConfig(
        embedding_size=stages[0],
        hidden_sizes=stages,
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = AutoConfig.for_model(
        "rt_detr",
        backbone_config=backbone,
        encoder_hidden_dim=features,
        encoder_in_channels=stages[1:],
        encoder_ffn_dim=2 * features,
        encoder_attention_heads=features // 16,
        d_model=features,
        decoder_in_channels=[features] * 3,
        decoder_ffn_dim=2 * features,
        decoder_layers=3,
        decoder_attention_heads=features // 16,
        num_queries=30,
        num_denoising=0,
        anchor_image_size=None,
        **_names(labels),
    )
    return OpenDetector(AutoModelForObjectDetection.from_config(config), processor={})


def describe_detector_processor(model: OpenDetector, *, height: int, width: int) -> dict[str, Any]:
    """The processor's configuration, for transformers: what `forward` does to a picture of this size."""
    return {
        "image_processor_type": "RTDetrImageProcessor" if model.sigmoid else "YolosImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": model.preprocess.mean.flatten().tolist(),
        "image_std": model.preprocess.std.flatten().tolist(),
        "do_pad": False,
        "format": "coco_detection",
        "do_convert_annotations": True,
    }


def _names(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def _read_processor(folder: Path) -> dict[str, Any]:
    path = folder / PROCESSOR
    told: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return told
