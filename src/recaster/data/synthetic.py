"""Synthetic requests to an assistant, made by a seeded script: a text workload without a download.

They are templates with words filled in, and nothing measured on them says anything of real language.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

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


def source_file() -> Path:
    """The file that decides the records."""
    return Path(__file__)


def make_requests() -> Iterator[RawRecord]:
    """1,200 requests with the labels weather, alarm, music and message; always the same."""
    chosen = random.Random(20)
    for number in range(_ROWS):
        label = LABELS[number % len(LABELS)]
        text = chosen.choice(_REQUESTS[label]).format(
            place=chosen.choice(_PLACES),
            time=chosen.choice(_TIMES),
            song=chosen.choice(_SONGS),
            person=chosen.choice(_PEOPLE),
        )
        text = f"{chosen.choice(_OPENINGS)} {text}".strip()
        yield RawRecord(
            id=f"request-{number:04d}", label=label, where=f"synthetic request {number}", text=text
        )
