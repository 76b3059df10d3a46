"""The detectors of this package, with fresh weights or with those of a base folder.

scratch:small-detector                       → detector.build_model(backbone="small", …)
config.json {"architecture": "mobilenet-v2"} → its layers as the backbone, the rest fresh
config.json {"architecture": "detector", …}  → a detector that was trained here, whole
config.json {"model_type": "yolos"}          → one of transformers, its head fresh where labels differ
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.models import open_detectors
from recaster.models.detector import Detector, build_model
from recaster.models.loading import load_state, read_state
from recaster.models.open_detectors import OpenDetector, build_open_detector, fresh_open_detector

_FRESH = {"small-detector": "small", "mobilenet-v2-detector": "mobilenet-v2"}
BACKBONES = (*_FRESH, *open_detectors.FRESH)
"""What may follow `scratch:`."""


def is_open(folder: Path) -> bool:
    """Whether the model in `folder` is one of transformers."""
    return "model_type" in read_json(folder / "config.json")


def find_backbone(arguments: Mapping[str, Any], base: Path | None) -> str:
    """The backbone that a plan's `model_arguments` or its base name.

    Raises:
        RecipeError: the base is no backbone that is known here.
    """
    if base is None:
        return _FRESH[arguments["backbone"]]
    config = read_json(base / "config.json")
    name = str(config.get("architecture", "")).replace("_", "-")
    if name == "detector":
        return str(config["arguments"]["backbone"])
    if name == "mobilenet-v2":
        return name
    raise RecipeError(
        "The base is no backbone of a detector that is known here.",
        where="model.base",
        value=f"architecture {name or config.get('model_type', '(none)')}",
        repair="use MobileNetV2 with ImageNet weights, YOLOS, RT-DETR or D-FINE, a detector that was trained "
        "here, or scratch:" + " or scratch:".join(BACKBONES),
    )


def build_detector(arguments: Mapping[str, Any], base: Path | None) -> Detector | OpenDetector:
    """The network, with the base's weights where they fit; its `report` says what became of these.

    Raises:
        RecipeError: the base is no backbone, or the pictures do not fit the network.
        BaseModelError: none of its weights fits.
    """
    if base is not None and is_open(base):
        return build_open_detector(base, arguments["labels"])
    try:
        if arguments["backbone"] in open_detectors.FRESH:
            return fresh_open_detector(arguments["labels"], features=arguments["features"])
        model = build_model(**own_arguments(arguments, base))
    except ValueError as error:
        raise RecipeError(
            "This detector cannot be built for these pictures.",
            where="data.boxes, model.width",
            value=str(error),
            repair="set data.boxes.height and width, and model.width, to multiples of 32",
        ) from error
    assert isinstance(model, Detector)  # noqa: S101
    if base is not None:
        model.report = load_state(model, read_state(base))  # type: ignore[assignment] # no module, no tensor
    return model


def own_arguments(arguments: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    """What `detector.build_model` takes, from a plan's `model_arguments`."""
    told = {name: value for name, value in arguments.items() if name != "labels"}
    return {**told, "backbone": find_backbone(arguments, base)}


def load_detector(artifact: Path) -> tuple[Detector | OpenDetector, int]:
    """The detector of an exported artifact, and how many boxes it finds at most."""
    most = int(read_json(artifact / "preprocessing.json")["max_boxes"])
    if is_open(artifact):
        names = read_json(artifact / "config.json")["id2label"]
        return build_open_detector(artifact, [names[str(number)] for number in range(len(names))]), most
    model = build_model(**read_json(artifact / "config.json")["arguments"])
    assert isinstance(model, Detector)  # noqa: S101
    model.load_state_dict(read_state(artifact))
    return model, most
