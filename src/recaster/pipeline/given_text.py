"""What comes through standard input, as a file of the form that a kind of records has.

I don't know.   →   trees: given.txt        text: {"text": "I don't know."}       chat: a user's message
1  I  I  …      →   trees: given.conllu     pairs: given.txt, a line for each text to translate
{"text": …}     →   JSON lines stay what they are
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recaster.core.errors import DataError, RecipeError
from recaster.models.conllu import is_conllu

_LINES: dict[str, Callable[[str], dict[str, Any]]] = {
    "text": lambda line: {"text": line},
    "chat": lambda line: {"messages": [{"role": "user", "content": line}]},
}
"""Kinds of which a line is a record."""


def write_given(content: bytes, kind: str, folder: Path) -> Path:
    """Write `content` into `folder`; return the file.

    Args:
        kind: of record, as `recipe.data.KINDS` has them.

    Raises:
        DataError: it is no text in UTF-8, or empty.
        RecipeError: records of this kind are no text.
    """
    if kind not in (*_LINES, "trees", "pairs", "corpus"):
        raise RecipeError(
            "Records of this kind do not come through standard input.",
            where="standard input",
            value=kind,
            repair="name a file or a folder",
        )
    text = _decode(content)
    name = "given.txt"
    if text.lstrip().startswith("{"):
        name = "given.jsonl"
    elif kind in _LINES:
        name = "given.jsonl"
        rows = [_LINES[kind](line.strip()) for line in text.splitlines() if line.strip()]
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif kind == "pairs":
        text = "".join(f"{line}\n" for line in text.splitlines() if line.strip())
    elif kind == "trees" and is_conllu(text):
        name = "given.conllu"
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _decode(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "Standard input is not UTF-8.",
            where=f"standard input, byte {error.start}",
            value=content[error.start : error.start + 8],
            repair="convert it, for example with `iconv -t UTF-8`",
        ) from error
    if not text.strip():
        raise DataError(
            "Standard input is empty.",
            where="standard input",
            value="",
            repair="give it a text, or name a file",
        )
    return text
