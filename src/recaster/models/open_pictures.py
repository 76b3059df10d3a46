"""Picture classifiers of the transformers library behind what the training loop knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.models.loading import LoadReport
from recaster.models.open_models import OpenModel, load_network
from recaster.models.picture_input import Preprocess

PROCESSOR = "preprocessor_config.json"
FRESH = ("vit", "convnext-tiny")
"""What may follow `scratch:` of the networks that are transformers' own."""
_PATCHES, _LARGEST_PATCH = 8, 16
"""Patches of a vit on a side; of larger pictures than 128 pixels a patch has 16, as its paper has it."""
_HEAD_WIDTH, _CONVNEXT_UNIT = 64, 32
_HALF = (0.5, 0.5, 0.5)


class PictureClassifier(OpenModel):
    """A label for each picture."""

    def __init__(
        self, network: nn.Module, *, processor: Mapping[str, Any], report: LoadReport | None = None
    ) -> None:
        super().__init__(network, report)
        self.preprocess = Preprocess(
            size=_side(network, processor),
            mean=processor.get("image_mean") or _HALF,
            std=processor.get("image_std") or _HALF,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(rows, labels)` of pictures `(rows, channels, height, width)` in 0..1."""
        logits: Tensor = self.network(pixel_values=self.preprocess(images)).logits
        return logits

    def encode(self, inputs: Tensor) -> Tensor:
        """What the classifier's last module is given, a row a picture."""
        head = self.network.get_submodule(self._head())
        seen: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            self(inputs)
        finally:
            hook.remove()
        return seen[0]

    def decide(self, features: Tensor) -> Tensor:
        """Logits `(rows, labels)` of `encode`'s result."""
        logits: Tensor = self.network.get_submodule(self._head())(features)
        return logits

    def head_names(self) -> list[str]:
        """The modules of `decide`."""
        return [f"network.{self._head()}"]

    def _head(self) -> str:
        whole = getattr(
            self.network, "get_base_model", lambda: self.network
        )()  # inside an adapter's wrapping
        children = dict(whole.named_children())
        if "classifier" not in children:
            raise RecipeError(
                "This architecture's head cannot be trained apart from its encoder.",
                where="customize.method",
                value=f"probe with a model whose parts are {', '.join(children)}",
                repair="use lora or full, or a model with one head named classifier, such as ViT or ConvNeXt",
            )
        return "classifier"


def build_picture_classifier(base: Path, labels: Sequence[str]) -> PictureClassifier:
    """A classifier into `labels` from the folder of a transformers model.

    Raises:
        RecipeError: transformers has no picture classifier of this architecture.
        BaseModelError: none of the weights fits.
    """
    from transformers import AutoModelForImageClassification

    network, report = load_network(
        AutoModelForImageClassification,
        base,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    return PictureClassifier(network, processor=read_processor(base), report=report)


def build_fresh_classifier(arguments: Mapping[str, Any]) -> PictureClassifier:
    """A vision transformer or a ConvNeXt-T with fresh weights.

    Args:
        arguments: architecture, labels, height and width of the pictures, the size they are scaled to, and
            of vit hidden and layers: the width of a token (192 and 12 are DeiT-Ti's) and how many blocks.

    Sources: Dosovitskiy et al. 2021, "An image is worth 16x16 words"; Liu et al. 2022, "A ConvNet for the
    2020s", of which dropout is the share of residual branches that a training pass leaves out.

    Raises:
        RecipeError: the pictures have no one side that such a network could divide.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    side, labels = _fresh_side(arguments), arguments["labels"]
    names = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "image_size": side,
    }
    if arguments["architecture"] == "convnext-tiny":
        config = AutoConfig.for_model("convnext", drop_path_rate=arguments["dropout"], **names)
    else:
        width = arguments["hidden"]
        config = AutoConfig.for_model(
            "vit",
            hidden_size=width,
            num_hidden_layers=arguments["layers"],
            num_attention_heads=max(1, width // _HEAD_WIDTH),
            intermediate_size=4 * width,
            patch_size=_patch(side),
            hidden_dropout_prob=arguments["dropout"],
            **names,
        )
    return PictureClassifier(AutoModelForImageClassification.from_config(config), processor={})


def _fresh_side(arguments: Mapping[str, Any]) -> int:
    height, width = arguments["height"], arguments["width"]
    side = arguments["size"] or (height if height == width else 0)
    unit = _CONVNEXT_UNIT if arguments["architecture"] == "convnext-tiny" else _patch(side)
    if side and side % unit == 0:
        return int(side)
    raise RecipeError(
        "This network looks at square pictures, whose sides it divides.",
        where="model.input_size",
        value=f"{side or 'none'}, with pictures of {height} x {width} pixels",
        repair="set model.input_size to a multiple of 32; for vit of 16 will do, and below 128 of 8",
    )


def _patch(side: int) -> int:
    """Pixels on a side of a vit's patch."""
    return min(_LARGEST_PATCH, max(2, side // _PATCHES))


def read_processor(folder: Path) -> dict[str, Any]:
    """How the model's pictures were brought into shape, as its folder says; empty when it does not."""
    path = folder / PROCESSOR
    told: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return told


def describe_processor(model: PictureClassifier) -> dict[str, Any]:
    """The processor's configuration, for transformers: what `forward` does to a picture."""
    told: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor",  # resize, rescale, normalise: no model of its own
        "do_resize": model.preprocess.size is not None,
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": model.preprocess.mean.flatten().tolist(),
        "image_std": model.preprocess.std.flatten().tolist(),
    }
    if size := model.preprocess.size:
        told["size"] = {"height": size, "width": size}
    return told


def _side(network: nn.Module, processor: Mapping[str, Any]) -> int | None:
    """Pixels a side: those that the weights are for, else those of the processor."""
    wanted = getattr(network.config, "image_size", None)
    if isinstance(wanted, int):
        return wanted
    size = processor.get("size")
    if isinstance(size, dict):
        return int(size.get("shortest_edge") or size.get("height") or 0) or None
    return int(size) if isinstance(size, int) else None
