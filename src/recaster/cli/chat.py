"""A conversation in the terminal: replies appear while they are written.

you> wake me at six
The alarm will ring at six.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any
from unicodedata import category

from recaster.core.errors import DataError
from recaster.models.replies import ChatVoice

_PROMPT = "you> "


def talk(voice: ChatVoice, *, system: str | None, temperature: float, aloud: bool) -> list[dict[str, Any]]:
    """Answer line after line of standard input until it ends, or an empty line.

    Args:
        aloud: write replies to standard output while they come.

    Returns:
        The whole conversation; `filtered` names the rules of the model's policy that changed an answer.

    Raises:
        DataError: a line is not UTF-8, or has control characters.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    with suppress(KeyboardInterrupt):  # as good an end as any; what was said is kept
        for line in _read_lines():
            messages.append({"role": "user", "content": line})
            answer = voice.reply(messages, temperature=temperature)
            reply = ""
            for piece in answer:
                reply += piece
                _say(piece, aloud=aloud)
            _say("\n", aloud=aloud)
            messages.append({"role": "assistant", "content": reply.strip()})
            if answer.filtered:
                messages[-1]["filtered"] = answer.filtered
                sys.stderr.write(f"(filtered: {', '.join(answer.filtered)})\n")
    return messages


def _say(text: str, *, aloud: bool) -> None:
    if aloud:
        sys.stdout.write(text)
        sys.stdout.flush()


def _read_lines() -> Iterator[str]:
    for number in count(1):
        if sys.stdin.isatty():
            sys.stderr.write(_PROMPT)
            sys.stderr.flush()
        # Bytes, since a line that is not UTF-8 must be named, whatever the terminal's own encoding.
        line = _decode(sys.stdin.buffer.readline(), number).strip()
        if not line:
            return
        yield line


def _decode(line: bytes, number: int) -> str:
    where = f"standard input, line {number}"
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            "A message is not UTF-8.",
            where=f"{where}, byte {error.start}",
            value=line[error.start : error.start + 8],
            repair="convert it, for example with `iconv -t UTF-8`",
        ) from error
    if odd := next((letter for letter in text.strip() if category(letter) == "Cc" and letter != "\t"), ""):
        raise DataError(
            "A message has a control character.",
            where=where,
            value=f"U+{ord(odd):04X}",
            repair="remove it",
        )
    return text
