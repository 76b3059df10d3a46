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
    copy_tokenizer(tokenizer, folder)


def name_problem(network: Any, *, several: bool) -> None:
    """Let the configuration say whether a row has one label or several, for transformers' own loss."""
    kind = "multi_label_classification" if several else "single_label_classification"
    network.config.problem_type = kind


def write_adapter_folder(folder: Path, *, adapted: Any, tokenizer: Path, base: str) -> None:
    """Write what peft trained beside a transformers model, and that model, untouched, into `folder/base`.

    To read it, peft's `PeftModel.from_pretrained` takes the model of `folder/base`, and `folder`.

    Args:
        base: the MODEL reference, which the adapter's configuration names.
    """
    adapted.active_peft_config.base_model_name_or_path = base
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # peft's own model card, of which nothing is filled in
    network = adapted.get_base_model()
    network.save_pretrained(folder / "base")
    copy_tokenizer(tokenizer, folder)


def copy_tokenizer(tokenizer: Path, folder: Path) -> None:
    """Copy the tokenizer's files that `folder` does not have yet."""
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists() and not (folder / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)
