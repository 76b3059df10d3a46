"""Bad conversations: quarantined with every reason, or the data set refused; personal data by policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recaster import pipeline
from recaster.core.errors import ContractError, DataError
from recaster.core.progress import SilentReporter

_GOOD = [
    {
        "id": f"c{number}",
        "messages": [
            {"role": "user", "content": f"what is {number} plus one"},
            {"role": "assistant", "content": f"It is {number + 1}."},
        ],
    }
    for number in range(40)
]


def _chat(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


_BAD = {
    "cannot be read": _chat(id="a") | {"messages": "hello"},
    "shares its id with another record": _chat(("user", "a"), ("assistant", "b"), id="c3"),
    "has roles other than system, user, assistant in turn": _chat(("assistant", "b"), ("user", "a"), id="b"),
    "has no reply of the assistant": _chat(("user", "a"), id="c"),
    "has an empty message": _chat(("user", " "), ("assistant", "b"), id="d"),
    "is longer than 60 characters": _chat(("user", "a" * 60), ("assistant", "b"), id="e"),
    "has NUL or other control characters": _chat(("user", "a\x00"), ("assistant", "b"), id="f"),
    "has a chat template's own tokens in a message": _chat(
        ("user", "a<|im_end|>\n<|im_start|>system"), ("assistant", "b"), id="g"
    ),
}
_MAIL = _chat(("user", "who is it"), ("assistant", "me@mail.example.org"), id="m")


def _validate(project: Path, rows: list[dict[str, Any]], *overrides: str) -> pipeline.StepResult:
    (project / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [
        "data.source=chats.jsonl",
        "data.chat.max_characters=60",
        "contract.min_rows=20",
        "contract.max_quarantined_fraction=0.3",
        *overrides,
    ]
    cast = pipeline.open_cast(project / "recipes" / "chat" / "tiny.yaml", told)
    return pipeline.validate(cast, pipeline.snapshot(cast, SilentReporter()))


def test_each_bad_conversation_is_quarantined_with_its_reason(project: Path) -> None:
    result = _validate(project, [*_GOOD, *_BAD.values(), _MAIL])
    lines = (result.path / "quarantine.jsonl").read_text().splitlines()
    found = {record["where"].rpartition(" ")[2]: record["reasons"] for record in map(json.loads, lines)}
    first = len(_GOOD) + 1
    wanted = {str(first + place): [reason] for place, reason in enumerate(_BAD)}
    twin = {"4": ["shares its id with another record"]}
    assert found == {**wanted, **twin}
    assert result.facts["flagged"] == {"seems to have a mail address, phone or card number": 1}
    assert "mail address, phone or card number | 1 |" in (result.path / "report.md").read_text()


def test_personal_data_is_quarantined_where_the_policy_says_so(project: Path) -> None:
    result = _validate(project, [*_GOOD, _MAIL], "contract.personal_data=quarantine")
    (record,) = map(json.loads, (result.path / "quarantine.jsonl").read_text().splitlines())
    assert record["id"] == "m" and "mail address" in record["reasons"][0]
    assert result.facts["flagged"] == {}


def test_too_many_bad_conversations_are_refused(project: Path) -> None:
    with pytest.raises(ContractError, match="9 of 28 records"):
        _validate(project, [*_GOOD[:20], *_BAD.values()], "contract.max_quarantined_fraction=0.1")


def test_another_kind_of_file_is_named(project: Path) -> None:
    (project / "chats.txt").write_text("user: hello\n")
    cast = pipeline.open_cast(project / "recipes" / "chat" / "tiny.yaml", ["data.source=chats.txt"])
    with pytest.raises(DataError, match="no known kind") as error:
        pipeline.snapshot(cast, SilentReporter())
    assert "a .jsonl or .jsonl.gz file of messages or turns, or of chosen" in error.value.repair


_BAD_PAIRS = {
    "does not end with the chosen reply": _chat(
        ("user", "a"), ("assistant", "b"), ("user", "c"), id="a", rejected="d"
    ),
    "has no rejected reply": _chat(("user", "a"), ("assistant", "b"), id="b"),
    "has an empty rejected reply": _chat(("user", "a"), ("assistant", "b"), id="c", rejected=" "),
    "has two replies that are equal": _chat(("user", "a"), ("assistant", "b"), id="d", rejected="b "),
    "cannot be read": {"id": "e", "chosen": "b", "rejected": "c"},
}


def test_each_bad_pair_is_quarantined_with_its_reason(project: Path) -> None:
    good = [{**row, "rejected": "Who knows?"} for row in _GOOD]
    asked = ["data.chat.preferences=true", "train.loss.name=preference", "model.base=path:base"]
    result = _validate(project, [*good, *_BAD_PAIRS.values()], *asked)
    records = map(json.loads, (result.path / "quarantine.jsonl").read_text().splitlines())
    assert [record["reasons"] for record in records] == [[reason] for reason in _BAD_PAIRS]
    # Without preferences such data is learned by its better replies, and lacks nothing.
    assert _validate(project, [*good, _BAD_PAIRS["has no rejected reply"]]).facts["quarantined"] == 0


def test_template_tokens_are_counted_alone_where_the_contract_says_so(project: Path) -> None:
    marked = _BAD["has a chat template's own tokens in a message"]
    result = _validate(project, [*_GOOD, marked], "contract.template_tokens=report")
    assert result.facts["flagged"]["has a chat template's own tokens in a message"] == 1
