"""Base folders with a BERT encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.models.bert_encoder import read_size


def read_encoder(base: Path, *, of: str) -> dict[str, Any]:
    """The size of the encoder in a base folder, as `BertEncoder` takes it.

    Args:
        of: the error's first sentence: what needs such an encoder.

    Raises:
        RecipeError: it is of another kind than BERT.
    """
    config = read_json(base / "config.json")
    if (kind := config.get("model_type")) != "bert":
        raise RecipeError(
            of,
            where="model.base",
            value=f"model type {kind or config.get('architecture', '(none)')}",
            repair="use one such as MiniLM (`recaster models list`)",
        )
    return read_size(config)
