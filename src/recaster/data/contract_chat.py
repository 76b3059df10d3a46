"""The data contract of conversations."""

from __future__ import annotations

import unicodedata
from typing import Any

from recaster.data.chat_sources import parse_messages
from recaster.data.contract import RowRule, common_rules, personal_rule
from recaster.models.personal_data import count_personal
from recaster.models.template_marks import count_marks
from recaster.models.turn_order import check_order
from recaster.recipe.data import ContractSection, DataSection

FACTS = (
    "characters",
    "replies",
    "empty_messages",
    "control_characters",
    "role_order",
    "personal_data",
    "template_tokens",
)
_LAYOUT = frozenset("\t\n\r")


def describe_chat(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of one packed conversation; none of one that could not be read."""
    if record["text"] is None:
        return dict.fromkeys(FACTS)
    messages = parse_messages(record["text"])
    text = "\n".join(message["content"] for message in messages)
    return {
        "characters": len(text),
        "replies": sum(message["role"] == "assistant" for message in messages),
        "empty_messages": sum(not message["content"].strip() for message in messages),
        "control_characters": sum(
            unicodedata.category(letter) == "Cc" and letter not in _LAYOUT for letter in text
        ),
        "role_order": check_order(messages),
        "personal_data": sum(count_personal(text).values()),
        "template_tokens": count_marks(text),
    }


def chat_rules(data: DataSection, contract: ContractSection) -> list[RowRule]:
    """Readable, in order, with a reply, nothing empty, not endless; personal data by the recipe's policy."""
    import great_expectations.expectations as gxe

    assert data.chat is not None  # noqa: S101 - the workload's kind
    longest = data.chat.max_characters
    among, between = gxe.ExpectColumnValuesToBeInSet, gxe.ExpectColumnValuesToBeBetween
    return [
        *common_rules(data),
        RowRule.of(
            among(column="role_order", value_set=[""]), "has roles other than system, user, assistant in turn"
        ),
        RowRule.of(between(column="replies", min_value=1), "has no reply of the assistant"),
        RowRule.of(among(column="empty_messages", value_set=[0]), "has an empty message"),
        RowRule.of(between(column="characters", max_value=longest), f"is longer than {longest} characters"),
        RowRule.of(among(column="control_characters", value_set=[0]), "has NUL or other control characters"),
        personal_rule(contract),
        RowRule(
            expectation=among(column="template_tokens", value_set=[0]),
            column="template_tokens",
            meaning="has a chat template's own tokens in a message",
            only_counted=contract.template_tokens == "report",
        ),
    ]
