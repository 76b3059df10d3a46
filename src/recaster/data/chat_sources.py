"""Conversations as their owners keep them, one at a time, bad ones included.

{"id": "a7", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
{"id": "b2", "prompt": "Who is your hero?", "turns": [{"speaker": 0, "text": "My aunt."}, …]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recaster.data.records import RawRecord
from recaster.data.text_sources import parse_object, read_lines

Message = dict[str, str]
"""`role` (system, user or assistant) and `content`."""


def read_chats(path: Path) -> Iterator[RawRecord] | None:
    """The conversations of the JSON lines file at `path`; None when it is none. `.gz` is unpacked.

    A line has `messages`, or the `turns` of two people: the one who begins becomes the user, the other the
    assistant, what one says in several turns on end becomes one message of several lines, and the `prompt`
    they were given, if any, the system's message.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    return _read_lines(path) if kind == ".jsonl" else None


def _read_lines(path: Path) -> Iterator[RawRecord]:
    for number, line, problem in read_lines(path):
        row, wrong = parse_object(line)
        messages: list[Message] = []
        if not wrong:
            messages, wrong = _to_messages(row)
        yield RawRecord(
            id=str(row.get("id") or f"{path.name}:{number}"),
            label=None if row.get("label") is None else str(row["label"]),
            where=f"{path}, line {number}",
            text=None if wrong else dump_messages(messages),
            problem=problem or wrong,
        )


def dump_messages(messages: list[Message]) -> str:
    """A conversation as the text of its record."""
    return json.dumps(messages, ensure_ascii=False)


def parse_messages(text: str) -> list[Message]:
    """The conversation of a record's text."""
    messages: list[Message] = json.loads(text)
    return messages


def _to_messages(row: dict[str, Any]) -> tuple[list[Message], str]:
    """The conversation of a row, or what is wrong with its form."""
    if "messages" in row:
        return _check_messages(row["messages"])
    if "turns" in row:
        return _from_turns(row["turns"], row.get("prompt"))
    return [], f"has neither messages nor turns, but {', '.join(sorted(row)) or 'nothing'}"


def _check_messages(found: object) -> tuple[list[Message], str]:
    if not isinstance(found, list):
        return [], f"messages is {type(found).__name__}, wanted a list"
    messages = []
    for number, entry in enumerate(found):
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(key), str) for key in ("role", "content")
        ):
            return [], f"message {number} lacks a role or content that is a string"
        messages.append({"role": entry["role"], "content": entry["content"]})
    return messages, ""


def _from_turns(found: object, prompt: object) -> tuple[list[Message], str]:
    if not isinstance(found, list):
        return [], f"turns is {type(found).__name__}, wanted a list"
    messages: list[Message] = []
    if isinstance(prompt, str) and prompt.strip():
        messages.append({"role": "system", "content": prompt})
    speakers: list[object] = []
    for number, turn in enumerate(found):
        if not isinstance(turn, dict) or "speaker" not in turn or not isinstance(turn.get("text"), str):
            return [], f"turn {number} lacks a speaker, or text that is a string"
        speaker = turn["speaker"]
        if speaker not in speakers:
            speakers.append(speaker)
        if len(speakers) > 2:
            return [], f"turn {number} is a third speaker's, {speaker!r}"
        role = ("user", "assistant")[speakers.index(speaker)]
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n{turn['text']}"
        else:
            messages.append({"role": role, "content": turn["text"]})
    return messages, ""
