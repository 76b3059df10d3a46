"""The detectors of this package, with fresh weights or with those of a base folder.

scratch:small-detector                       → detector.build_model(backbone="small", …)
config.json {"architecture": "mobilenet-v2"} → its layers as the backbone, the rest fresh
config.json {"architecture": "detector", …}  → a detector that was trained here, whole
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.models.detector import Detector, build_model
from recaster.models.loading import load_state, read_state

_FRESH = {"small-detector": "small", "mobilenet-v2-detector": "mobilenet-v2"}
BACKBONES = tuple(_FRESH)
"""What may follow `scratch:`."""


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
        repair="use MobileNetV2 with ImageNet weights, a detector that was trained here, or scratch:"
        + " or scratch:".join(BACKBONES),
    )


def build_detector(arguments: Mapping[str, Any], base: Path | None) -> Detector:
    """The network, with the base's weights where they fit; its `report` says what became of these.

    Raises:
        RecipeError: the base is no backbone, or the pictures do not fit the network.
        BaseModelError: none of its weights fits.
    """
    try:
        model = build_model(**{**arguments, "backbone": find_backbone(arguments, base)})
    except ValueError as error:
        raise RecipeError(
            "This detector cannot be built for these pictures.",
            where="data.boxes",
            value=str(error),
            repair="set data.boxes.height and width to multiples of 32, and resize to stretch or pad",
        ) from error
    assert isinstance(model, Detector)  # noqa: S101
    if base is not None:
        model.report = load_state(model, read_state(base))  # type: ignore[assignment] # no module, no tensor
    return model


def load_detector(artifact: Path) -> tuple[Detector, int]:
    """The detector of an exported artifact, and how many boxes it finds at most."""
    model = build_model(**read_json(artifact / "config.json")["arguments"])
    assert isinstance(model, Detector)  # noqa: S101
    model.load_state_dict(read_state(artifact))
    return model, int(read_json(artifact / "preprocessing.json")["max_boxes"])
