"""The data contract of texts and their translations."""

from __future__ import annotations

import re
import unicodedata
from itertools import combinations, permutations, starmap
from typing import Any

from recaster.data.contract import RowRule, common_rules, personal_rule
from recaster.data.pair_sources import parse_sides
from recaster.models.personal_data import count_personal
from recaster.recipe.data import ContractSection, DataSection

FACTS = (
    "sides",
    "empty_sides",
    "characters",
    "control_characters",
    "length_ratio",
    "copied_fraction",
    "personal_data",
)
_LAYOUT = frozenset("\t\n\r")
_WORD = re.compile(r"\w+")


def describe_pair(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of one packed record, of the worst of its pairs; none of one that could not be read."""
    if record["text"] is None:
        return dict.fromkeys(FACTS)
    sides = list(parse_sides(record["text"]).values())
    whole = "\n".join(sides)
    return {
        "sides": len(sides),
        "empty_sides": sum(not text.strip() for text in sides),
        "characters": max(map(len, sides)),
        "control_characters": sum(
            unicodedata.category(letter) == "Cc" and letter not in _LAYOUT for letter in whole
        ),
        "length_ratio": max(starmap(_length_ratio, combinations(sides, 2)), default=1.0),
        "copied_fraction": max(starmap(_copied_fraction, permutations(sides, 2)), default=0.0),
        "personal_data": sum(count_personal(whole).values()),
    }


def _length_ratio(one: str, other: str) -> float:
    short, long = sorted((len(one.strip()), len(other.strip())))
    return long / short if short else 1.0  # an empty side has a rule of its own


def _copied_fraction(source: str, target: str) -> float:
    """Share of the source's words that the target has too."""
    words = _WORD.findall(source.casefold())
    own = set(_WORD.findall(target.casefold()))
    return sum(word in own for word in words) / len(words) if words else 0.0


def pair_rules(data: DataSection, contract: ContractSection) -> list[RowRule]:
    """Readable, with both sides, neither empty nor endless, of like length; copies by the recipe's policy."""
    import great_expectations.expectations as gxe

    assert data.pairs is not None  # noqa: S101 - the workload's kind
    shape = data.pairs
    among, between = gxe.ExpectColumnValuesToBeInSet, gxe.ExpectColumnValuesToBeBetween
    return [
        *common_rules(data),
        RowRule.of(between(column="sides", min_value=2), "lacks a translation"),
        RowRule.of(among(column="empty_sides", value_set=[0]), "has an empty side"),
        RowRule.of(
            between(column="characters", max_value=shape.max_characters),
            f"has a side longer than {shape.max_characters} characters",
        ),
        RowRule.of(among(column="control_characters", value_set=[0]), "has NUL or other control characters"),
        RowRule.of(
            between(column="length_ratio", max_value=shape.max_length_ratio),
            f"has one side over {shape.max_length_ratio:g} times as long as the other",
        ),
        RowRule(
            expectation=between(column="copied_fraction", max_value=shape.max_copied_fraction),
            column="copied_fraction",
            meaning=f"has over {shape.max_copied_fraction:.0%} of its words in its translation too",
            only_counted=shape.copies == "report",
        ),
        personal_rule(contract),
    ]
