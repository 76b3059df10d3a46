"""Plain torch models, told apart by the names and shapes of their published state dicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recaster.models
from recaster.bases.safetensors_header import TensorHead
from recaster.core.errors import BaseModelError

_Shapes = dict[str, tuple[int, ...]]
_MARKS: dict[str, tuple[_Shapes, str, str]] = {
    # marks, weight of the last layer, what the architecture does not have
    "mobilenet-v2": (  # torchvision 0.x: mobilenet_v2, width 1
        {"features.0.0.weight": (32, 3, 3, 3), "features.18.0.weight": (1280, 320, 1, 1)},
        "classifier.1.weight",
        "features.0.se",
    ),
    "efficientnet-lite0": (  # names of efficientnet_pytorch; B0 differs by its squeeze-and-excitation
        {"_conv_stem.weight": (32, 3, 3, 3), "_conv_head.weight": (1280, 320, 1, 1)},
        "_fc.weight",
        "_blocks.0._se",
    ),
}


def known_architectures() -> set[str]:
    """Those with published weights, and the project's own modules of `recaster.models`."""
    own = Path(recaster.models.__file__).parent.glob("*.py")
    return {path.stem.replace("_", "-") for path in own if "\ndef build_model(" in path.read_text()} | {
        *_MARKS
    }


def check_configuration(config: Mapping[str, Any], where: Path) -> str:
    """The architecture that a plain torch model's configuration names.

    Raises:
        BaseModelError: it is unknown, or its arguments are no mapping.
    """
    architecture = str(config["architecture"])
    if architecture.replace("_", "-") not in known_architectures():
        raise BaseModelError(
            "The architecture is unknown.",
            where=str(where),
            value=architecture,
            repair=f"use one of: {', '.join(sorted(known_architectures()))}",
        )
    if not isinstance(config.get("arguments", {}), dict):
        raise BaseModelError(
            "The architecture's arguments are no JSON object.",
            where=str(where),
            value=repr(config["arguments"])[:200],
            repair="write arguments: {}",
        )
    return architecture


def recognise_state(tensors: Mapping[str, TensorHead], where: Path) -> dict[str, Any]:
    """`{"architecture": …, "arguments": {"classes": …}}` of a published state dict.

    Raises:
        BaseModelError: it is of none of the known architectures.
    """
    for architecture, (marks, last, absent) in _MARKS.items():
        marked = all(name in tensors and tensors[name].shape == shape for name, shape in marks.items())
        if marked and last in tensors and not any(name.startswith(absent) for name in tensors):
            return {"architecture": architecture, "arguments": {"classes": tensors[last].shape[0]}}
    raise BaseModelError(
        "The architecture is unknown: no config.json, and the tensors are of no model known here.",
        where=str(where),
        value=", ".join(list(tensors)[:4]) or "no tensors",
        repair=f"use a folder with config.json, or a state dict of {', '.join(_MARKS)}",
    )
