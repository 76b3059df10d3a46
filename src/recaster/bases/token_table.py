"""The vectors of an open model's tokens, as vectors of words.

A model of transformers, or a table of vectors: model.safetensors and tokenizer.json
word → its tokens → the mean of their rows, as widely spread as a fresh table's
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import BaseModelError
from recaster.data.tokenizers import find_unknown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, _WEIGHTS = "tokenizer.json", "model.safetensors"
_NAMES = ("embed", "wte", "shared")
"""What the names of input tables have in them: of BERT, GPT-2 and T5, and all that were named after these."""
_SPREAD = 0.25 / 3**0.5
"""Standard deviation of the fresh vectors of a network over words (Kim 2014: uniform within 0.25)."""


def has_token_table(folder: Path) -> bool:
    """Whether `folder` has a tokenizer and weights."""
    return (folder / TOKENIZER).is_file() and (folder / _WEIGHTS).is_file()


def read_token_table(folder: Path, words: Iterable[str]) -> tuple[list[str], NDArray[np.float32]]:
    """Those of `words` of which a token is known, and their vectors `(words, width)`.

    Vectors of models differ in size by a factor of ten; all are scaled alike, so that they have the standard
    deviation of fresh ones.

    Raises:
        BaseModelError: the weights have no table of the tokenizer's tokens, or several.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    table = _read_table(folder / _WEIGHTS, tokenizer.get_vocab_size())
    unknown = find_unknown(folder / TOKENIZER)
    tokens = {word: [one for one in _encode(tokenizer, word) if one != unknown] for word in words}
    known = [word for word, own in tokens.items() if own]
    if not known:
        return [], np.zeros((0, table.shape[1]), dtype=np.float32)
    rows = np.stack([table[tokens[word]].mean(0) for word in known])
    return known, (rows * (_SPREAD / max(float(rows.std()), 1e-12))).astype(np.float32)


def _encode(tokenizer: Tokenizer, word: str) -> list[int]:
    """The tokens of `word` within a text: of most models those of it with a space before."""
    ways = [tokenizer.encode(text, add_special_tokens=False).ids for text in (f" {word}", word)]
    # Tokenizers that put a space before each text themselves have a token more for a second one.
    return min(ways, key=len)


def _read_table(weights: Path, tokens: int) -> NDArray[np.float32]:
    """The only table with a row for each token, `(tokens or more, width)`."""
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - no mapping
        large = [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] >= tokens]
        named = [name for name in large if any(part in name for part in _NAMES)]
        if len(named) != 1:
            raise BaseModelError(
                "This model has no table of its tokens' vectors, or more than one.",
                where=str(weights),
                value=", ".join(named or large) or f"none with {tokens} rows",
                repair="name an encoder, a language model or a table of vectors",
            )
        table: NDArray[np.float32] = file.get_tensor(named[0]).float().numpy()
        return table
