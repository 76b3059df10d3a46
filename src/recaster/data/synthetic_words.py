"""Synthetic sentences in which words of one kind stand for each other, and pairs of words judged by kind.

twelve made-up kinds of things, each in one and in many:  a falda melts gently.  many faldas melt gently.

What the sentences plant is what the pairs ask: words of one kind are alike, others are not; one is to many
as another's one is to its many. Nothing measured on them says anything of real language.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from recaster.data.records import RawRecord

_KINDS, _THINGS, _DEEDS, _SENTENCES = 12, 5, 3, 1600
_SYLLABLES = ("fal", "mo", "ri", "den", "sa", "pu", "kel", "to", "vin", "gar", "le", "bo")
_ONE, _MANY = ("a", "this", "one"), ("many", "these", "some")


def source_file() -> Path:
    """The file that decides the records."""
    return Path(__file__)


def make_sentences() -> Iterator[RawRecord]:
    """1,600 sentences of made-up words; always the same."""
    chosen = random.Random(30)
    things, deeds = _name_words()
    for number in range(_SENTENCES):
        kind = number % _KINDS
        words: list[str] = []
        for _ in range(2):
            several = chosen.random() < 0.5
            thing = chosen.choice(things[kind])
            words += [chosen.choice(_MANY), thing + "s"] if several else [chosen.choice(_ONE), thing]
            words += [chosen.choice(deeds[kind]), chosen.choice(deeds[kind])]
        text = " ".join(words)
        yield RawRecord(
            id=f"sentence-{number:04d}", label=None, where=f"synthetic sentence {number}", text=f"{text}."
        )


def make_pairs() -> Iterator[RawRecord]:
    """Pairs of things, judged 2 of one kind, 1 of one kind but one against many, else 0; and analogies."""
    things, _ = _name_words()
    every = [
        (kind, several, thing + "s" * several)
        for kind in range(_KINDS)
        for several in (0, 1)
        for thing in things[kind]
    ]
    chosen = random.Random(31)
    lines = []
    for kind, several, word in every:
        near = chosen.choice(
            [one for one in every if one[0] == kind and one[1] == several and one[2] != word]
        )
        half = chosen.choice([one for one in every if one[0] == kind and one[1] != several])
        far = chosen.choice([one for one in every if one[0] != kind])
        lines += [f"{word}\t{other[2]}\t{score}" for other, score in ((near, 2), (half, 1), (far, 0))]
    flat = [thing for own in things for thing in own]
    for first in flat:
        second = chosen.choice([thing for thing in flat if thing != first])
        lines.append(f"{first} {first}s {second} {second}s")
    for number, line in enumerate(lines):
        yield RawRecord(id=f"pairs:{number}", label=None, where=f"synthetic pair {number}", text=line)


def _name_words() -> tuple[list[list[str]], list[list[str]]]:
    """Things and deeds of each kind; no word is there twice."""
    chosen = random.Random(32)
    names = [first + second + third for first in _SYLLABLES for second in _SYLLABLES for third in _SYLLABLES]
    chosen.shuffle(names)
    each = _THINGS + _DEEDS
    own = [names[kind * each : (kind + 1) * each] for kind in range(_KINDS)]
    return [words[:_THINGS] for words in own], [words[_THINGS:] for words in own]
