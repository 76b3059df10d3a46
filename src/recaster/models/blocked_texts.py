"""What a policy does not let pass: terms and regular expressions, and how far one must read to be sure.

Imports the standard library alone: a policy's source travels with a model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from recaster.models.folded_text import FoldedText, fold

_UNPARTED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
"""Scripts without spaces between words, by their letters' names."""


class Blocked:
    """Terms, whole words whatever their case and accents, and regular expressions, as they are.

    Args:
        patterns: none without an upper bound of what it matches, and none that looks around: the recipe's
            schema has refused them.
    """

    def __init__(self, terms: Sequence[str], patterns: Sequence[str]) -> None:
        folded = sorted({fold(term).strip() for term in terms}, key=len, reverse=True)
        self._terms = re.compile("|".join(map(_whole, folded))) if folded else None
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._term_letters = max((len(term) for term in folded), default=0)
        self._pattern_letters = max((_longest_match(pattern) for pattern in patterns), default=0)

    def find(self, text: str, folded: FoldedText, start: int = 0, folded_start: int = 0) -> dict[str, int]:
        """The kinds of which something is in `text` from `start` on, and where the first of each begins."""
        found: dict[str, int] = {}
        if self._terms and (term := self._terms.search(folded.text, folded_start)):
            found["blocked_terms"] = folded.place(term.start())
        places = [match.start() for pattern in self._patterns if (match := pattern.search(text, start))]
        return {**found, "blocked_patterns": min(places)} if places else found

    def decided(self, text: str, folded: FoldedText) -> int:
        """Up to where no more text can change what is found: later letters may still complete something."""
        # One letter more than the longest: what ends a word is looked at too.
        ends = [len(text)]
        if self._patterns:
            ends.append(len(text) - self._pattern_letters - 1)
        if self._terms:
            ends.append(folded.place(max(0, len(folded.text) - self._term_letters - 1)) if folded.text else 0)
        return max(0, min(ends))


def _whole(term: str) -> str:
    """A regular expression for the term where it is no part of a word, as far as its script parts words."""
    before, after = (
        r"" if _unparted(letter) else edge
        for letter, edge in zip((term[0], term[-1]), (r"(?<!\w)", r"(?!\w)"), strict=True)
    )
    return f"{before}{re.escape(term)}{after}"


def _unparted(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(_UNPARTED)


def _longest_match(pattern: str) -> int:
    from re import _parser  # type: ignore[attr-defined] # the standard library's own, without a public door

    return int(_parser.parse(pattern).getwidth()[1])
