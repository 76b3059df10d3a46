"""The open artifact: a directory that is read without Recaster.

model.safetensors   config.json   preprocessing.json   modeling.py   README.md
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from recaster.core.files import write_json


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
        modeling: a Python file that imports only torch and has `build_model(**arguments)`.
        preprocessing: height, width, channels, minimum, maximum of raw pictures.
    """
    shutil.copyfile(modeling, folder / "modeling.py")
    write_json(
        folder / "config.json", {"architecture": modeling.stem, "arguments": arguments, "labels": labels}
    )
    write_json(folder / "preprocessing.json", preprocessing)
