"""The recipe's section `data.pairs`: texts and their translations."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from recaster.recipe.section import Section

_DIRECTION = re.compile(r"([A-Za-z][A-Za-z_]{1,11})-([A-Za-z][A-Za-z_]{1,11})")


class PairShape(Section):
    """What every text and its translation must look like, and what becomes of them."""

    directions: list[str] = Field(min_length=1)
    """From which language into which, such as `[en-de, de-en]`: one model learns them all. A record holds
    one text in several languages, and gives an example for each direction that it has both sides of."""
    max_tokens: int = Field(ge=4, le=4096)
    """Of either side, special ones included. Longer pairs are left out of training, and counted; elsewhere a
    longer text is cut."""
    max_characters: int = Field(default=10_000, ge=1)
    """A text with a longer side is a broken record."""
    max_length_ratio: float = Field(default=6.0, gt=1)
    """Characters of the longer side of a pair over those of the shorter one, above which the two are hardly
    each other's translation: a broken record."""
    max_copied_fraction: float = Field(default=0.9, gt=0, le=1)
    """Share of a text's words that stand in its translation too, above which it was hardly translated."""
    copies: Literal["report", "quarantine"] = "report"
    """What becomes of pairs above that share: report counts them in the contract's report; quarantine leaves
    them out."""
    vocabulary: Literal["byte-pairs", "unigram"] = "byte-pairs"
    """How the tokens that all languages share are found in the training split, for a `scratch:` model:
    byte-pairs (Sennrich et al. 2016, over bytes, so that nothing is unknown) or unigram (Kudo 2018; its
    trainer gives slightly other tokens each time)."""
    prefixes: dict[str, str] = Field(default_factory=dict)
    """Of a direction: words before each of its texts, as some bases (T5) are told what to do."""

    @model_validator(mode="after")
    def _directions_are_told(self) -> PairShape:
        for direction in self.directions:
            found = _DIRECTION.fullmatch(direction)
            if found is None or found[1] == found[2]:
                raise ValueError(f"{direction!r} is no direction; write two languages, such as en-de")
        if len(set(self.directions)) != len(self.directions):
            raise ValueError(f"directions repeat: {self.directions}")
        if unknown := sorted(set(self.prefixes) - set(self.directions)):
            raise ValueError(f"prefixes are for directions, and {unknown[0]!r} is none of them")
        return self

    @property
    def languages(self) -> list[str]:
        """All that occur, sources of the first directions first."""
        sides = [direction.split("-") for direction in self.directions]
        return list(dict.fromkeys([*(one for one, _ in sides), *(other for _, other in sides)]))
