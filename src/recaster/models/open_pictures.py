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
