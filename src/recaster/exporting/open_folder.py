"""A model folder that the transformers library reads without Recaster."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)


def write_open_folder(folder: Path, *, network: Any, tokenizer: Path) -> None:
    """Write safetensors weights and configuration of a transformers model, and its tokenizer's files.

    Args:
        tokenizer: the folder that has them.
    """
    network.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists() and not (folder / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)
