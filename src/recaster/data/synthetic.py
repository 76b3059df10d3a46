"""Synthetic requests to an assistant, conversations with one, and notes, made by a seeded script.

They are templates with words filled in, and nothing measured on them says anything of real language.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from recaster.data.chat_sources import dump_messages
from recaster.data.records import RawRecord

_ROWS = 1200
_PLACES = ("berlin", "lagos", "lima", "oslo", "the office", "my home town", "kyoto", "the coast")
_TIMES = ("today", "tomorrow", "on friday", "this evening", "at noon", "next week", "in an hour", "at six")
_PEOPLE = ("anna", "my sister", "the landlord", "omar", "the bank", "grandpa", "our team", "li wei")
_SONGS = ("something quiet", "the new album", "old jazz", "a piano piece", "my running list", "folk songs")
_OPENINGS = ("", "", "please", "hey", "could you", "i would like you to", "quickly")
_REQUESTS: dict[str, tuple[str, ...]] = {
    "weather": (
        "tell me whether it will rain in {place} {time}",
        "how cold does it get in {place} {time}",
        "is there a storm coming to {place} {time}",
        "do i need an umbrella in {place} {time}",
    ),
    "alarm": (
        "wake me {time}",
        "set a timer that ends {time}",
        "remind me {time} to leave for {place}",
        "let it ring {time}",
    ),
    "music": (
        "play {song}",
        "put on {song} in {place}",
        "turn up the volume of {song}",
        "skip this and start {song}",
    ),
    "message": (
        "write to {person} that i come {time}",
        "call {person} {time}",
        "answer {person} that i am in {place}",
        "send {person} a note about {song}",
    ),
}
LABELS = tuple(_REQUESTS)
_CHATS = _NOTES = 480
_PERSONA = "You are a brief assistant."
_REPLIES = {
    "weather": "I will look up the weather in {place} {time}.",
    "alarm": "The alarm will ring {time}.",
    "music": "Now playing {song}.",
    "message": "I will tell {person}.",
}
_OTHERS = 8
"""Replies with other words, of which one is the worse one: enough for one that differs."""
_ENDINGS = (("thank you", "You are welcome."), ("good bye", "Good bye!"), ("that is all", "Good bye!"))


def source_file() -> Path:
    """The file that decides the records."""
    return Path(__file__)


def make_requests() -> Iterator[RawRecord]:
    """1,200 requests with the labels weather, alarm, music and message; always the same."""
    chosen = random.Random(20)
    for number in range(_ROWS):
        label = LABELS[number % len(LABELS)]
        text = chosen.choice(_REQUESTS[label]).format(**_choose_words(chosen))
        text = f"{chosen.choice(_OPENINGS)} {text}".strip()
        yield RawRecord(
            id=f"request-{number:04d}", label=label, where=f"synthetic request {number}", text=text
        )


def make_chats() -> Iterator[RawRecord]:
    """480 conversations of one to three requests, some with a system message; always the same."""
    chosen = random.Random(21)
    for number in range(_CHATS):
        messages = [{"role": "system", "content": _PERSONA}] if chosen.random() < 0.3 else []
        for _ in range(chosen.randint(1, 3)):
            topic, words = chosen.choice(LABELS), _choose_words(chosen)
            messages += _exchange(
                chosen.choice(_REQUESTS[topic]).format(**words), _REPLIES[topic].format(**words)
            )
        messages += _exchange(*chosen.choice(_ENDINGS)) if chosen.random() < 0.5 else []
        yield RawRecord(
            id=f"chat-{number:04d}",
            label=None,
            where=f"synthetic chat {number}",
            text=dump_messages(messages),
        )


def make_preferences() -> Iterator[RawRecord]:
    """480 conversations, whose last reply is about what was asked, and the worse one not; always the same."""
    chosen = random.Random(23)
    for number in range(_CHATS):
        messages: list[dict[str, str]] = []
        for _ in range(chosen.randint(1, 2)):
            topic, words = chosen.choice(LABELS), _choose_words(chosen)
            messages += _exchange(
                chosen.choice(_REQUESTS[topic]).format(**words), _REPLIES[topic].format(**words)
            )
        others = {_REPLIES[topic].format(**_choose_words(chosen)) for _ in range(_OTHERS)}
        yield RawRecord(
            id=f"preference-{number:04d}",
            label=None,
            where=f"synthetic preference {number}",
            text=dump_messages(messages, chosen.choice(sorted(others - {messages[-1]["content"]}))),
        )


def make_notes() -> Iterator[RawRecord]:
    """480 notes of two to five requests and replies each; always the same."""
    chosen = random.Random(22)
    for number in range(_NOTES):
        sentences = []
        for _ in range(chosen.randint(2, 5)):
            topic, words = chosen.choice(LABELS), _choose_words(chosen)
            sentences += [chosen.choice(_REQUESTS[topic]).format(**words), _REPLIES[topic].format(**words)]
        text = " ".join(f"{text[0].upper()}{text[1:].rstrip('.')}." for text in sentences)
        yield RawRecord(id=f"note-{number:04d}", label=None, where=f"synthetic note {number}", text=text)


def _choose_words(chosen: random.Random) -> dict[str, str]:
    words = {"place": _PLACES, "time": _TIMES, "song": _SONGS, "person": _PEOPLE}
    return {name: chosen.choice(choices) for name, choices in words.items()}


def _exchange(request: str, reply: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": request}, {"role": "assistant", "content": reply}]
