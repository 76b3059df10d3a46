"""Conversations from files, their facts, and what is measured of replies."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest

from recaster.data.chat_sources import parse_messages, read_chats
from recaster.data.contract_chat import describe_chat
from recaster.data.records import RawRecord
from recaster.evaluation.chat_report import measure_replies
from recaster.evaluation.token_report import perplexity, token_accuracy
from recaster.models.personal_data import count_personal
from recaster.models.turn_order import check_order


def _read(path: Path, *rows: object) -> list[RawRecord]:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    found = read_chats(path)
    assert found is not None
    return list(found)


def _say(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} speaks"} for role in roles]


def test_messages_and_turns_are_read(tmp_path: Path) -> None:
    turns = [(0, "hi"), (0, "anyone?"), (1, "yes"), (0, "good")]
    records = _read(
        tmp_path / "chats.jsonl",
        {"id": 7, "messages": _say("user", "assistant")},
        {"prompt": "Who?", "turns": [{"speaker": who, "text": text} for who, text in turns]},
        {"prompt": None, "turns": [{"speaker": "Z", "text": "a"}, {"speaker": "B", "text": "b"}]},
    )
    assert [record.problem for record in records] == ["", "", ""]
    assert [record.id for record in records] == ["7", "chats.jsonl:2", "chats.jsonl:3"]
    assert parse_messages(records[0].text or "") == _say("user", "assistant")
    assert parse_messages(records[1].text or "") == [
        {"role": "system", "content": "Who?"},
        {"role": "user", "content": "hi\nanyone?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "good"},
    ]
    roles = [message["role"] for message in parse_messages(records[2].text or "")]
    assert roles == ["user", "assistant"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "not JSON"),
        ('["a"]', "not a JSON object"),
        ({"text": "a"}, "neither messages nor turns, but text"),
        ({"messages": "a"}, "messages is str"),
        ({"messages": [{"role": "user"}]}, "message 0 lacks a role or content"),
        ({"messages": [{"role": "user", "content": None}]}, "message 0 lacks a role or content"),
        ({"turns": {}}, "turns is dict"),
        ({"turns": [{"text": "a"}]}, "turn 0 lacks a speaker"),
        ({"turns": [{"speaker": who, "text": "a"} for who in (0, 1, 2)]}, "turn 2 is a third speaker's, 2"),
    ],
)
def test_bad_lines_say_what_is_wrong(tmp_path: Path, row: object, problem: str) -> None:
    (record,) = _read(tmp_path / "chats.jsonl", row)
    assert problem in record.problem and record.text is None and record.where.endswith("line 1")
    assert set(describe_chat({"text": None}).values()) == {None}


def test_packed_and_odd_bytes(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"\xef\xbb\xbf" + json.dumps({"messages": _say("user", "assistant")}).encode() + b"\r\n\n")
        file.write(b'{"messages": [{"role": "user", "content": "\xff"}]}\n')
    good, bad = read_chats(path) or []
    assert good.problem == "" and good.id == "chats.jsonl.gz:1"
    assert bad.problem.startswith("not UTF-8 at byte") and bad.id == "chats.jsonl.gz:3"
    assert read_chats(tmp_path / "chats.csv") is None


def test_long_lines_and_other_scripts_are_read(tmp_path: Path) -> None:
    texts = ["word " * 200_000, "שלום, مرحبا \u202eabc\u202c", "👩‍👩‍👧 😀\ufeff"]
    chats = [{"messages": [*_say("user"), {"role": "assistant", "content": text}]} for text in texts]
    records = _read(tmp_path / "chats.jsonl", *chats)
    assert [parse_messages(record.text or "")[1]["content"] for record in records] == texts
    facts = [describe_chat({"text": record.text}) for record in records]
    assert facts[0]["characters"] > 10**6 and {entry["control_characters"] for entry in facts} == {0}


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        (("user", "assistant"), ""),
        (("system", "user", "assistant", "user"), ""),
        (("assistant", "user"), "assistant before user"),
        (("system", "assistant"), "assistant before user"),
        (("user", "system", "assistant"), "system after the beginning"),
        (("user", "user", "assistant"), "user twice on end"),
        (("user", "tool"), "unknown role tool"),
        ((), ""),
    ],
)
def test_order_of_roles(roles: tuple[str, ...], problem: str) -> None:
    assert check_order(_say(*roles)) == problem


def test_facts_of_a_conversation() -> None:
    messages = [
        {"role": "user", "content": "call me at +44 20 7946 0018\x00"},
        {"role": "assistant", "content": "  "},
    ]
    facts = describe_chat({"text": json.dumps(messages)})
    assert facts["replies"] == 1 and facts["empty_messages"] == 1 and facts["control_characters"] == 1
    assert facts["personal_data"] == 1 and facts["role_order"] == "" and facts["template_tokens"] == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to a.b+c@mail.example.org", {"mail": 1, "phone": 0, "card": 0}),
        ("+49 30 1234567 or (801) 555-1234", {"mail": 0, "phone": 2, "card": 0}),
        ("my card is 4111 1111 1111 1111", {"mail": 0, "phone": 0, "card": 1}),
        ("order 4111111111111112", {"mail": 0, "phone": 0, "card": 0}),
        (
            "on 2020-01-01 10:00, in 1990-2000, 3.14159265 or 1,000,000,000",
            dict.fromkeys(("mail", "phone", "card"), 0),
        ),
        ("word" * 250_000 + " anna@example.org", {"mail": 1, "phone": 0, "card": 0}),
    ],
    ids=["mail", "phones", "card", "order", "numbers", "megabyte"],
)
def test_patterns_of_personal_data(text: str, found: dict[str, int]) -> None:
    assert count_personal(text) == found


def test_perplexity_weighs_tokens_not_conversations() -> None:
    predictions, targets = np.array([[2.0, 1.0], [30.0, 6.0]]), np.array([2, 10])
    assert perplexity(predictions, targets) == pytest.approx(math.exp(32 / 12))
    assert token_accuracy(predictions, targets) == pytest.approx(7 / 12)


def test_how_replies_read() -> None:
    found = measure_replies(["a b a b a b a b", "a c", ""])
    assert found["distinct_1"] == pytest.approx(3 / 10) and found["distinct_2"] == pytest.approx(3 / 8)
    assert found["repetition"] == pytest.approx(3 / 5)  # abab and baba, of which three come again
    assert found["words"] == pytest.approx(10 / 3) and found["empty"] == pytest.approx(1 / 3)
    assert measure_replies(["", ""])["distinct_1"] == 0.0
