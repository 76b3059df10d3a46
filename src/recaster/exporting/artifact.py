"""The open artifact: a directory that is read without Recaster.

model.safetensors   config.json   preprocessing.json   modeling.py   README.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recaster.core.files import write_json
from recaster.exporting.modeling_source import compose_source


def write_artifact(
    folder: Path,
    *,
    modeling: Path,
    arguments: dict[str, Any],
    labels: list[str],
    preprocessing: dict[str, Any],
) -> None:
    """Write everything but weights and card into `folder`.

    Args:
        modeling: a network's module: it has `build_model(**arguments)`, imports only torch and siblings.
        preprocessing: height, width, channels, minimum, maximum of raw pictures.
    """
    (folder / "modeling.py").write_text(compose_source(modeling), encoding="utf-8")
    write_json(
        folder / "config.json", {"architecture": modeling.stem, "arguments": arguments, "labels": labels}
    )
    write_json(folder / "preprocessing.json", preprocessing)
