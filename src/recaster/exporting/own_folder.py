"""Folders of this package's own networks for texts: read with torch alone, by the source beside the weights.

config.json {"architecture": …, "arguments": {…}}   modeling.py   model.safetensors   tokenizer.json …
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from recaster.core.files import write_json
from recaster.exporting.modeling_source import compose_source
from recaster.exporting.open_folder import copy_tokenizer


def write_own_network(
    folder: Path,
    *,
    model: nn.Module,
    arguments: Mapping[str, Any],
    tokenizer: Path,
    told: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, source, configuration and tokenizer into `folder`.

    Args:
        arguments: of `build_model` of the model's module.
        tokenizer: the folder that has its files.
        told: what else the configuration says.
    """
    module = type(model).__module__.rpartition(".")[2]
    source = importlib.import_module(f"recaster.models.{module}").__file__
    (folder / "modeling.py").write_text(compose_source(Path(str(source))), encoding="utf-8")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", {**(told or {}), "architecture": module, "arguments": dict(arguments)})
    copy_tokenizer(tokenizer, folder)
