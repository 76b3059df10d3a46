"""What people ask of a generator in production: new pictures, on one sheet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import RecipeError
from recaster.core.files import storage_errors
from recaster.core.settings import Settings


def sample(
    settings: Settings,
    name: str,
    to: Path,
    *,
    count: int,
    seed: int,
    label: str | None = None,
    alias: str = "champion",
) -> list[dict[str, Any]]:
    """Write `count` new pictures as one sheet, a PNG file, and say which seed and label each has.

    Args:
        seed: of the first picture; each of the others has the number after the one before it.
        label: of all of them; None gives each label of a conditional model its turn.

    Raises:
        RecipeError: the model is no generator, or does not know the label.
        RecasterError: no version has this alias.
    """
    import pandas as pd

    from recaster.registry.versions import load_model
    from recaster.tracking.runs import open_tracking, service_errors

    with service_errors(settings.tracking_uri):
        model, described = load_model(open_tracking(settings), name, alias)
    if described["kind"] != "noise":
        raise RecipeError(
            "This model makes no pictures.",
            where=name,
            value=f"it takes records of kind {described['kind']}",
            repair="name a source of records, or a model of the workload image-generation",
        )
    labels = _labels(model, count, label, name)
    asked = {"seed": list(range(seed, seed + count))} | ({"label": labels} if labels else {})
    pictures = np.asarray(model.predict(pd.DataFrame(asked)))
    write_sheet(pictures, described["minimum"], described["maximum"], to)
    return [
        {
            "id": f"{to.name}#{row}",
            **({"label": labels[row]} if labels else {}),
            "seed": seed + row,
        }
        for row in range(count)
    ]


def _labels(model: Any, count: int, label: str | None, name: str) -> list[str]:
    """A label for each picture; none for a model that is not conditional."""
    known: list[str] = model.unwrap_python_model().labels
    if label is not None and label not in known:
        raise RecipeError(
            "The model does not know this label." if known else "This model takes no labels.",
            where=name,
            value=label,
            repair=f"use one of: {', '.join(known)}" if known else "leave --label out",
        )
    return [label or known[row % len(known)] for row in range(count)] if known else []


def write_sheet(pictures: NDArray[np.float32], low: float, high: float, to: Path) -> None:
    """Write pictures `(rows, height, width, channels)` in `low`..`high` beside each other as one PNG file.

    Raises:
        StorageError: it cannot be written.
    """
    from PIL import Image

    rows, height, width, channels = pictures.shape
    columns = math.ceil(math.sqrt(rows))
    lines = math.ceil(rows / columns)
    sheet = np.zeros((lines * columns, height, width, channels), dtype=np.uint8)
    sheet[:rows] = np.round((pictures - low) / (high - low) * 255).clip(0, 255)
    sheet = sheet.reshape(lines, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    flat = sheet.reshape(lines * height, columns * width, channels)
    picture = Image.fromarray(flat[:, :, 0] if channels == 1 else flat)
    with storage_errors(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        picture.save(to, format="PNG")
