"""Text as block lists see it: without case, accents, invisible characters and repeated spaces.

"Straße  Ca\u200bFÉ"   →   "strasse cafe", and from where in the text each letter comes

Imports the standard library alone: a policy's source travels with a model.
"""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+")


class FoldedText:
    """A text that grows, folded letter by letter, so that what was folded never changes."""

    def __init__(self, text: str = "") -> None:
        self.text = ""
        self.places: list[int] = []
        """Of each letter of `text`, its letter in the original."""
        self._read = 0
        self.add(text)

    def add(self, piece: str) -> None:
        """Fold what comes next."""
        letters = []
        last = self.text[-1:]
        for place, letter in enumerate(piece, start=self._read):
            for part in _fold(letter):
                if part == " " and last == " ":
                    continue
                letters.append(part)
                self.places.append(place)
                last = part
        self._read += len(piece)
        self.text += "".join(letters)

    def place(self, number: int) -> int:
        """Where in the original letter `number` of the folded text comes from; its end if there is none."""
        return self.places[number] if number < len(self.places) else self._read

    def words(self, start: int = 0) -> list[tuple[str, int, int]]:
        """Each word from letter `start` of the folded text on, and from where to where it is there."""
        return [(found[0], *found.span()) for found in _WORD.finditer(self.text, start)]


def fold(text: str) -> str:
    """The folded text."""
    return FoldedText(text).text


def _fold(letter: str) -> str:
    """Compatible letters are one (NFKD), marks above and below and formatting characters are none."""
    if letter.isspace():
        return " "
    parts = unicodedata.normalize("NFKD", letter).casefold()
    return "".join(
        " " if part.isspace() else part
        for part in parts
        if not unicodedata.combining(part) and unicodedata.category(part) != "Cf"
    )
