"""A text and its translation as tokens, by a model's own tokenizer.

trained here    <en> two dogs run </s>            <de> → zwei Hunde rennen </s>
of a base       translate …: two dogs run </s>    its start token → zwei Hunde rennen </s>
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.data.tokenizers import Tokenizer, open_tokenizer


def language_tag(language: str) -> str:
    """The special token that stands for a language."""
    return f"<{language}>"


class PairTokenizer:
    """Both sides of a direction by the tokenizer in a model's folder.

    Args:
        prefixes: of the directions that have one.

    Raises:
        RecipeError: it has no tokenizer, or nothing that ends a text.
    """

    def __init__(self, folder: Path, prefixes: Mapping[str, str]) -> None:
        self.inner: Tokenizer = open_tokenizer(folder)
        self._prefixes = dict(prefixes)
        end = self.inner.named("eos_token")
        if end is None:
            raise RecipeError(
                "The tokenizer names no eos_token.",
                where="model.base",
                value=str(folder / "tokenizer_config.json"),
                repair="add it there",
            )
        self.end = end
        self.unknown = self.inner.named("unk_token")
        self._start = _read_start(folder)

    @property
    def tagged(self) -> bool:
        """Whether languages have tags: in a tokenizer that was trained here."""
        return self._start is None

    def source(self, text: str, direction: str, *, longest: int) -> list[int]:
        """The tokens of a text to translate; a longer one is cut before its end."""
        if not self.tagged:
            return self.inner.truncate(self.inner.encode(self._prefixes.get(direction, "") + text), longest)
        tag = self._tag(direction.partition("-")[0])
        return [tag, *self.inner.encode_plain(text)[: longest - 2], self.end]

    def target(self, text: str, direction: str, *, longest: int) -> list[int]:
        """What the decoder begins with, then the tokens of a translation, its end among them."""
        if not self.tagged:
            assert self._start is not None  # noqa: S101 - of a base
            tokens = self.inner.encode(text)
            tokens = tokens if tokens[-1:] == [self.end] else [*tokens, self.end]
            return [self._start, *self.inner.truncate(tokens, longest - 1)]
        return [self.start(direction), *self.inner.encode_plain(text)[: longest - 2], self.end]

    def start(self, direction: str) -> int:
        """What the decoder begins with in a direction."""
        return self._tag(direction.partition("-")[2]) if self._start is None else self._start

    def read(self, tokens: list[int]) -> str:
        """The text of a translation's tokens."""
        return self.inner.decode(tokens).strip()

    def _tag(self, language: str) -> int:
        number = self.inner.number_of(language_tag(language))
        if number is None:
            raise RecipeError(
                "The model was not trained on this language.",
                where="data.pairs.directions",
                value=language,
                repair="name another direction, or train with it",
            )
        return number


def _read_start(folder: Path) -> int | None:
    """The start token of a base's decoder; None where languages have tags, which then begin translations."""
    file = folder / "config.json"
    if not file.exists():
        return None
    config = read_json(file)
    if "tags" in config:
        return None
    start = config.get("decoder_start_token_id")
    if start is None:
        start = config.get("bos_token_id")
    if start is None:
        raise RecipeError(
            "The base does not say what its decoder begins with.",
            where="model.base",
            value=str(file),
            repair="set decoder_start_token_id there",
        )
    return int(start)
