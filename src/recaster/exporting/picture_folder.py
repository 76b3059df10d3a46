"""The open artifact of a network that reads one picture, whichever library it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from recaster.core.files import write_json
from recaster.exporting.artifact import write_artifact
from recaster.exporting.open_folder import write_open_folder
from recaster.models.loading import base_folder
from recaster.models.open_pictures import PROCESSOR, PictureClassifier, describe_processor
from recaster.models.picture_models import find_architecture


def write_picture_folder(
    folder: Path,
    network: nn.Module,
    *,
    plan: dict[str, Any],
    labels: list[str],
    preprocessing: dict[str, Any],
) -> None:
    """Write all but the card: a folder for transformers' own classes, else weights and the network's source.

    Args:
        labels: what the outputs stand for; none where they are a vector.
        preprocessing: see `write_artifact`.
    """
    base = base_folder(plan)
    if isinstance(network, PictureClassifier):
        write_open_folder(folder, network=network.network, tokenizer=base or folder)
        write_json(folder / PROCESSOR, describe_processor(network))
        write_json(folder / "preprocessing.json", preprocessing)
        return
    save_file(network.state_dict(), folder / "model.safetensors")
    found = find_architecture(plan["model_arguments"], base)
    write_artifact(
        folder,
        modeling=Path(found.module.__file__ or ""),
        arguments=found.arguments,
        labels=labels,
        preprocessing=preprocessing,
    )
