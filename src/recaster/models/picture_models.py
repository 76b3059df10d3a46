"""The picture classifiers of this package by name, with fresh weights or with those of a base folder.

scratch:resnet-20                            → resnet.build_model(depth=20, …)
scratch:vit                                  → a model of transformers with fresh weights
config.json {"architecture": "mobilenet-v2"} → mobilenet_v2.build_model(…), weights by their published names
config.json {"model_type": "vit", …}         → a model of transformers
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.data.shards import sample_pictures
from recaster.models import airbench, efficientnet_lite0, mobilenet_v2, open_pictures, resnet, small_cnn
from recaster.models.loading import load_state, read_state
from recaster.models.open_pictures import build_fresh_classifier, build_picture_classifier

_MODULES: dict[str, ModuleType] = {
    "small-cnn": small_cnn,
    "resnet": resnet,
    "mobilenet-v2": mobilenet_v2,
    "efficientnet-lite0": efficientnet_lite0,
    "airbench": airbench,
}
_FRESH: dict[str, tuple[str, dict[str, Any]]] = {
    "small-cnn": ("small-cnn", {}),
    "resnet-20": ("resnet", {"depth": 20}),
    "resnet-18": ("resnet", {"depth": 18}),
    "mobilenet-v2": ("mobilenet-v2", {}),
    "efficientnet-lite0": ("efficientnet-lite0", {}),
    "airbench": ("airbench", {}),
    "airbench-95": ("airbench", {"widening": 3}),
}
FRESH = tuple(_FRESH)
"""What may follow `scratch:` of the networks of this package."""
ALL_FRESH = (*FRESH, *open_pictures.FRESH)
"""Of those of transformers too."""
_BEGIN_WITH = 5000
"""Pictures from which a network takes fresh weights."""
_DATA_ARGUMENTS = ("channels", "height", "width", "classes", "dropout", "size")
"""Those that the recipe decides, whatever the base was built with."""


@runtime_checkable
class BeginsWithPictures(Protocol):
    """A network whose fresh weights are in part a function of the data."""

    def begin_with(self, pictures: Tensor) -> None:
        """Take them from some of the training split, `(batch, channels, height, width)` in 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network of this package: its source, and what it is built with."""

    module: ModuleType
    arguments: dict[str, Any]

    def build(self) -> nn.Module:
        """The network with fresh weights.

        Raises:
            RecipeError: the arguments do not go together.
        """
        build: Callable[..., nn.Module] = self.module.build_model
        try:
            return build(**self.arguments)
        except ValueError as error:
            raise RecipeError(
                "This model cannot be built for these pictures.",
                where="model",
                value=str(error),
                repair="change data.image, model.input_size or model.width, or choose another model.base",
            ) from error


def is_open(folder: Path) -> bool:
    """Whether the model in `folder` is one of transformers."""
    return "model_type" in read_json(folder / "config.json")


def find_architecture(arguments: Mapping[str, Any], base: Path | None) -> Architecture:
    """The network for a plan's `model_arguments`, as its name or the base's configuration says.

    Raises:
        RecipeError: the base is of no architecture for pictures that is known here.
    """
    if base is None:
        name, own = _FRESH[arguments["architecture"]]
        return _architecture(name, {**arguments, **own})
    config = read_json(base / "config.json")
    name = str(config.get("architecture", "")).replace("_", "-")
    if name not in _MODULES:
        raise RecipeError(
            "The base is no model for pictures that is known here.",
            where="model.base",
            value=f"architecture {name or '(none)'}",
            repair=f"use a base of {', '.join(_MODULES)}, or one that transformers classifies pictures with",
        )
    decided = {key: value for key, value in arguments.items() if key in _DATA_ARGUMENTS}
    return _architecture(name, {**arguments, **config.get("arguments", {}), **decided})


def load_picture_model(artifact: Path) -> nn.Module:
    """The model of an exported artifact.

    Raises:
        RecipeError: it is of an architecture that is not known here.
    """
    if is_open(artifact):
        names = read_json(artifact / "config.json")["id2label"]
        return build_picture_classifier(artifact, [names[str(number)] for number in range(len(names))])
    arguments = read_json(artifact / "config.json")["arguments"]
    model = find_architecture(arguments, artifact).build()
    model.load_state_dict(read_state(artifact))
    return model


def build_picture_model(
    arguments: Mapping[str, Any], base: Path | None, *, pictures: Path | None = None
) -> nn.Module:
    """The network, with the base's weights where they fit; its `report` says what became of these.

    Args:
        arguments: architecture (of fresh weights), labels, and what the networks' `build_model` take.
        pictures: the prepared data, with whose training split some networks begin; without it, at random.

    Raises:
        RecipeError: the base is of no architecture that is known here, or does not take these pictures.
        BaseModelError: none of its weights fits.
    """
    if base is not None and is_open(base):
        return build_picture_classifier(base, arguments["labels"])
    if base is None and arguments["architecture"] in open_pictures.FRESH:
        return build_fresh_classifier(arguments)
    model = find_architecture(arguments, base).build()
    if base is None and pictures is not None and isinstance(model, BeginsWithPictures):
        model.begin_with(torch.from_numpy(sample_pictures(pictures, "train", most=_BEGIN_WITH)))
    if base is not None:
        model.report = load_state(model, read_state(base))  # type: ignore[assignment] # no module, no tensor
    return model


def _architecture(name: str, arguments: Mapping[str, Any]) -> Architecture:
    module = _MODULES[name]
    taken = inspect.signature(module.build_model).parameters
    return Architecture(
        module=module, arguments={key: value for key, value in arguments.items() if key in taken}
    )
