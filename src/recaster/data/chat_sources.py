"""Conversations as their owners keep them, one at a time, bad ones included.

{"id": "a7", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
{"id": "b2", "prompt": "Who is your hero?", "turns": [{"speaker": 0, "text": "My aunt."}, …]}

And pairs, whose last message has a worse alternative:
{"id": "c5", "messages": [{"role": "user", …}, {"role": "assistant", …}], "rejected": "no idea"}
{"id": "d1", "prompt": "hi", "chosen": "hello", "rejected": "what"}        also as lists of messages
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
    they were given, if any, the system's message. A line with `chosen`, or with `rejected` beside its
    messages, is a pair.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    return _read_lines(path) if kind == ".jsonl" else None


def _read_lines(path: Path) -> Iterator[RawRecord]:
    for number, line, problem in read_lines(path):
        row, wrong = parse_object(line)
        messages: list[Message] = []
        rejected: str | None = None
        if not wrong:
            messages, rejected, wrong = _to_chat(row)
        yield RawRecord(
            id=str(row.get("id") or f"{path.name}:{number}"),
            label=None if row.get("label") is None else str(row["label"]),
            where=f"{path}, line {number}",
            text=None if wrong else dump_messages(messages, rejected),
            problem=problem or wrong,
        )


def dump_messages(messages: list[Message], rejected: str | None = None) -> str:
    """A conversation as the text of its record, with what is worse than its last reply, if anything is."""
    told = messages if rejected is None else {"messages": messages, "rejected": rejected}
    return json.dumps(told, ensure_ascii=False)


def parse_messages(text: str) -> list[Message]:
    """The conversation of a record's text."""
    return parse_pair(text)[0]


def parse_pair(text: str) -> tuple[list[Message], str | None]:
    """The conversation of a record's text, and what is worse than its last reply, where that is told."""
    told = json.loads(text)
    return (told["messages"], told["rejected"]) if isinstance(told, dict) else (told, None)


def _to_chat(row: dict[str, Any]) -> tuple[list[Message], str | None, str]:
    """The conversation of a row and what is worse than its last reply, or what is wrong with its form."""
    if "chosen" in row or "rejected" in row:
        return _from_pair(row)
    if "messages" in row:
        messages, wrong = _check_messages(row["messages"])
    elif "turns" in row:
        messages, wrong = _from_turns(row["turns"], row.get("prompt"))
    else:
        named = ", ".join(sorted(row)) or "nothing"
        messages, wrong = [], f"has neither messages nor turns, but {named}"
    return messages, None, wrong


def _from_pair(row: dict[str, Any]) -> tuple[list[Message], str | None, str]:
    """What was said and the two replies to it, each a text, or the messages from there on, or all of them."""
    prompt, wrong = _read_prompt(row.get("messages", row.get("prompt")))
    if wrong:
        return [], None, wrong
    if "chosen" in row:
        messages, wrong = _go_on(prompt, row["chosen"], "chosen")
    else:
        messages, prompt = prompt, prompt[:-1]
    if wrong or row.get("rejected") is None:  # that one is missing is for the contract to say
        return messages, None, wrong
    others, wrong = _go_on(prompt, row["rejected"], "rejected")
    if not wrong and others[:-1] != messages[:-1]:
        wrong = "chosen and rejected differ before their last message"
    if not wrong and others[-1]["role"] != "assistant":
        wrong = f"rejected ends with a message of {others[-1]['role']}, not of the assistant"
    return messages, None if wrong else others[-1]["content"], wrong


def _read_prompt(found: object) -> tuple[list[Message], str]:
    if found is None:
        return [], ""
    return ([{"role": "user", "content": found}], "") if isinstance(found, str) else _check_messages(found)


def _go_on(prompt: list[Message], found: object, name: str) -> tuple[list[Message], str]:
    """The conversation `prompt` with the reply `found`, which may be a list that repeats it all."""
    if isinstance(found, str):
        if not prompt:
            return [], f"{name} is a text, and no prompt or messages say what it answers"
        return [*prompt, {"role": "assistant", "content": found}], ""
    messages, wrong = _check_messages(found, name)
    if not wrong and not messages:
        wrong = f"{name} has no message"
    if wrong:
        return [], wrong
    return (messages if messages[0]["role"] != "assistant" else [*prompt, *messages]), ""


def _check_messages(found: object, name: str = "messages") -> tuple[list[Message], str]:
    if not isinstance(found, list):
        return [], f"{name} is {type(found).__name__}, wanted a list"
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
