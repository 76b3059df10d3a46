"""The data contract of conversations."""

from __future__ import annotations

import unicodedata
from typing import Any

from recaster.data.chat_sources import parse_pair
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
    "last_role",
    "rejected_replies",
    "empty_rejected",
    "equal_replies",
    "template_tokens",
)
_LAYOUT = frozenset("\t\n\r")


def describe_chat(record: dict[str, Any]) -> dict[str, Any]:
    """The facts of one packed conversation; none of one that could not be read."""
    if record["text"] is None:
        return dict.fromkeys(FACTS)
    messages, rejected = parse_pair(record["text"])
    last = messages[-1] if messages else {"role": "", "content": ""}
    text = "\n".join([*(message["content"] for message in messages), rejected or ""])
    return {
        "characters": len(text),
        "replies": sum(message["role"] == "assistant" for message in messages),
        "empty_messages": sum(not message["content"].strip() for message in messages),
        "control_characters": sum(
            unicodedata.category(letter) == "Cc" and letter not in _LAYOUT for letter in text
        ),
        "role_order": check_order(messages),
        "personal_data": sum(count_personal(text).values()),
        "last_role": last["role"],
        "rejected_replies": int(rejected is not None),
        "empty_rejected": int(rejected is not None and not rejected.strip()),
        "equal_replies": int(rejected is not None and rejected.strip() == last["content"].strip()),
        "template_tokens": count_marks(text),
    }


def chat_rules(data: DataSection, contract: ContractSection) -> list[RowRule]:
    """Readable, in order, with a reply, nothing empty, not endless; personal data by the recipe's policy.

    With preferences, with two replies at the end, that differ.
    """
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
        *(_pair_rules() if data.chat.preferences else []),
        personal_rule(contract),
        RowRule(
            expectation=among(column="template_tokens", value_set=[0]),
            column="template_tokens",
            meaning="has a chat template's own tokens in a message",
            only_counted=contract.template_tokens == "report",
        ),
    ]


def _pair_rules() -> list[RowRule]:
    import great_expectations.expectations as gxe

    among, between = gxe.ExpectColumnValuesToBeInSet, gxe.ExpectColumnValuesToBeBetween
    return [
        RowRule.of(among(column="last_role", value_set=["assistant"]), "does not end with the chosen reply"),
        RowRule.of(between(column="rejected_replies", min_value=1), "has no rejected reply"),
        RowRule.of(among(column="empty_rejected", value_set=[0]), "has an empty rejected reply"),
        RowRule.of(among(column="equal_replies", value_set=[0]), "has two replies that are equal"),
    ]
