"""The data contract of texts."""

from __future__ import annotations

import unicodedata
from typing import Any

from recaster.data.contract import RowRule, common_rules, personal_rule
from recaster.models.personal_data import count_personal
from recaster.recipe.data import ContractSection, DataSection

FACTS = ("characters", "words", "control_characters", "personal_data")
_LAYOUT = frozenset("\t\n\r")


def describe_text(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of one packed text."""
    text: str = record["text"] or ""
    controls = sum(unicodedata.category(letter) == "Cc" and letter not in _LAYOUT for letter in text)
    return {
        "characters": len(text),
        "words": len(text.split()),
        "control_characters": controls,
        "personal_data": sum(count_personal(text).values()),
    }


def likelier_label_rule() -> RowRule:
    """Texts whose words are those of another label are counted, for people to look at."""
    import great_expectations.expectations as gxe

    return RowRule(
        expectation=gxe.ExpectColumnValuesToBeInSet(column="likelier_label", value_set=[""]),
        column="likelier_label",
        meaning="has a label that its words speak against",
        only_counted=True,
    )


def text_rules(data: DataSection, contract: ContractSection) -> list[RowRule]:
    """Readable, labelled, unique, not blank, not endless; personal data by the recipe's policy."""
    import great_expectations.expectations as gxe

    shape = data.text or data.corpus or data.words
    assert shape is not None  # noqa: S101 - the workload's kind
    longest = shape.max_characters
    return [
        *common_rules(data),
        RowRule.of(gxe.ExpectColumnValuesToBeBetween(column="words", min_value=1), "is blank"),
        RowRule.of(
            gxe.ExpectColumnValuesToBeBetween(column="characters", max_value=longest),
            f"is longer than {longest} characters",
        ),
        RowRule.of(
            gxe.ExpectColumnValuesToBeInSet(column="control_characters", value_set=[0]),
            "has NUL or other control characters",
        ),
        personal_rule(contract),
    ]
