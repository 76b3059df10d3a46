"""What a language model makes of held-out rows, for people to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recaster.core.files import read_json
from recaster.data.document_shards import SPLITS, open_document_rows
from recaster.data.token_shards import read_token_shard
from recaster.models.replies import write_replies

_LONGEST, _PROMPT = 40, 24
"""Tokens of a continuation, and most tokens of the text before it."""


def continue_texts(model: Any, artifact: Path, prepared: Path, count: int) -> list[dict[str, Any]]:
    """The likeliest continuation of the first half of `count` held-out rows, beside the real one."""
    about, shard = read_json(prepared / SPLITS), read_token_shard(prepared, "test")
    read, table = _reader(artifact), []
    for row in _choose(shard.lengths, count):
        marked = np.array(shard.tokens[shard.offsets[row] : shard.offsets[row + 1]])
        tokens = np.where(marked < 0, ~marked, marked).tolist()
        cut = min(_PROMPT, max(1, len(tokens) // 2))
        (written,) = write_replies(
            getattr(model, "network", model),  # a recurrent one writes itself
            [tokens[:cut]],
            padding=about["padding"],
            stop=[about["end"]],
            longest=_LONGEST,
        )
        table.append(
            {
                "id": shard.ids[row],
                "text": read(tokens[:cut]),
                "wanted": read(tokens[cut : cut + _LONGEST]).strip(),
                "continuation": read(written).strip(),
            }
        )
    return table


@torch.no_grad()
def fill_gaps(model: nn.Module, artifact: Path, prepared: Path, count: int) -> list[dict[str, Any]]:
    """What stood at the hidden places of `count` held-out rows, and the model's best guess."""
    data, shard = open_document_rows(prepared, "test"), read_token_shard(prepared, "test")
    read, table = _reader(artifact), []
    for row in _choose(shard.lengths, count):
        given, targets = data.batch(np.array([row]), seed=None)
        guesses = model(given)[0].argmax(-1).tolist()
        wanted = targets[0].tolist()
        plain = given[0].where(given[0] >= 0, ~given[0]).tolist()
        table.append(
            {
                "id": shard.ids[row],
                "text": read(plain, skip_special_tokens=False),
                "wanted": [read([token]).strip() for token in wanted],
                "guessed": [read([token]).strip() for token in guesses[: len(wanted)]],
            }
        )
    return table


def _choose(lengths: NDArray[np.int64], count: int) -> list[int]:
    """Rows evenly over all, the shortest and the longest among them."""
    rows: list[int] = np.unique(np.linspace(0, len(lengths) - 1, count).astype(int)).tolist()
    return rows


def _reader(artifact: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(artifact / "tokenizer.json")).decode
