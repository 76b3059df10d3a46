"""A conversation in the terminal: replies appear while they are written.

you> wake me at six
The alarm will ring at six.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from recaster.models.replies import ChatVoice

_PROMPT = "you> "


def talk(voice: ChatVoice, *, system: str | None, temperature: float, aloud: bool) -> list[dict[str, str]]:
    """Answer line after line of standard input until it ends, or an empty line.

    Args:
        aloud: write replies to standard output while they come.

    Returns:
        The whole conversation.
    """
    messages = [{"role": "system", "content": system}] if system else []
    with suppress(KeyboardInterrupt):  # as good an end as any; what was said is kept
        for line in _read_lines():
            messages.append({"role": "user", "content": line})
            reply = ""
            for piece in voice.reply(messages, temperature=temperature):
                reply += piece
                if aloud:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            if aloud:
                sys.stdout.write("\n")
                sys.stdout.flush()
            messages.append({"role": "assistant", "content": reply.strip()})
    return messages


def _read_lines() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            sys.stderr.write(_PROMPT)
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line.strip():
            return
        yield line.strip()
