"""Synthetic requests in English, German and French, made by a seeded script.

They are templates with words filled in, alike in each language but for the order of their parts; nothing
measured on them says anything of real language.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from recaster.data.pair_sources import dump_sides
from recaster.data.records import RawRecord

_ROWS = 1000
_LANGUAGES = ("en", "de", "fr")
_TEMPLATES = (
    ("Wake me {time}.", "Weck mich {time}.", "Réveille-moi {time}."),
    ("Call {person} {time}.", "Ruf {time} {person} an.", "Appelle {person} {time}."),
    ("Will it rain {time} {place}?", "Regnet es {time} {place}?", "Va-t-il pleuvoir {time} {place} ?"),
    ("Play {song} {place}.", "Spiel {place} {song}.", "Joue {song} {place}."),
    (
        "Tell {person} that I am {place}.",
        "Sag {person}, dass ich {place} bin.",
        "Dis à {person} que je suis {place}.",
    ),
    ("I need {song} {time}.", "Ich brauche {time} {song}.", "J'ai besoin de {song} {time}."),
)
_WORDS = {
    "time": (
        ("today", "heute", "aujourd'hui"),
        ("tomorrow", "morgen", "demain"),
        ("at noon", "am Mittag", "à midi"),
        ("at six", "um sechs", "à six heures"),
        ("this evening", "heute Abend", "ce soir"),
        ("on Friday", "am Freitag", "vendredi"),
        ("in an hour", "in einer Stunde", "dans une heure"),
        ("next week", "nächste Woche", "la semaine prochaine"),
    ),
    "person": (
        ("Anna", "Anna", "Anna"),
        ("Omar", "Omar", "Omar"),
        ("Li Wei", "Li Wei", "Li Wei"),
        ("Rosa", "Rosa", "Rosa"),
    ),
    "place": (
        ("in Berlin", "in Berlin", "à Berlin"),
        ("in Lima", "in Lima", "à Lima"),
        ("at home", "zu Hause", "à la maison"),
        ("in the office", "im Büro", "au bureau"),
        ("on the coast", "an der Küste", "sur la côte"),
        ("in the garden", "im Garten", "dans le jardin"),
    ),
    "song": (
        ("old jazz", "alten Jazz", "vieux jazz"),
        ("quiet music", "leise Musik", "musique douce"),
        ("folk songs", "Volkslieder", "chansons populaires"),
        ("a piano piece", "ein Klavierstück", "un morceau de piano"),
    ),
}
_POLITE = (("", "", ""), ("Please: ", "Bitte: ", "Sois gentil : "), ("Listen. ", "Hör zu. ", "Écoute. "))


def source_file() -> Path:
    """The file that decides the records."""
    return Path(__file__)


def make_pairs() -> Iterator[RawRecord]:
    """1,000 different texts of one or two requests, each in three languages; always the same."""
    chosen, seen = random.Random(23), set[str]()
    while len(seen) < _ROWS:
        requests = [_make_request(chosen) for _ in range(chosen.choice((1, 1, 2)))]
        opening = chosen.choice(_POLITE)
        texts = [
            opening[place] + " ".join(request[place] for request in requests)
            for place in range(len(_LANGUAGES))
        ]
        if texts[0] in seen:
            continue
        number = len(seen)
        seen.add(texts[0])
        yield RawRecord(
            id=f"pair-{number:04d}",
            label=None,
            where=f"synthetic pair {number}",
            text=dump_sides(dict(zip(_LANGUAGES, texts, strict=True))),
        )


def _make_request(chosen: random.Random) -> list[str]:
    """One request in each language."""
    template = chosen.choice(_TEMPLATES)
    words = {name: chosen.choice(choices) for name, choices in _WORDS.items()}
    return [
        template[place].format(**{name: word[place] for name, word in words.items()})
        for place in range(len(_LANGUAGES))
    ]
