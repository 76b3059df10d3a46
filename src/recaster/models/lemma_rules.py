"""How a word becomes its lemma, as one of a few hundred rules that a classifier can choose from.

Studies → study   lower:-3+y:      the small letters, three off the end, y on
went → go         =go              nothing in common: the lemma itself
IBM → IBM         keep::           as it stands

This file imports only the standard library: a copy of it travels with every exported parser.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

_CASES: dict[str, Callable[[str], str]] = {
    "keep": str,
    "lower": str.lower,
    "title": str.capitalize,
    "upper": str.upper,
}


@lru_cache(maxsize=1 << 16)  # most words of a treebank occur many times
def find_rule(form: str, lemma: str) -> str:
    """The shortest rule of ours by which `form` becomes `lemma`."""
    found = [rule for case in _CASES if (rule := _edit(form, lemma, case)) is not None]
    return min(found, key=len, default=f"={lemma}")


def _edit(form: str, lemma: str, case: str) -> str | None:
    """`case:END:BEGIN`, with `-N+text` for what is taken off and put on; None where nothing is in common."""
    word = _CASES[case](form)
    begin, end, length = _longest_part(word, lemma)
    if not length:
        return None
    tail = _change(len(word) - begin - length, lemma[end + length :])
    return f"{case}:{tail}:{_change(begin, lemma[:end])}"


def _change(off: int, on: str) -> str:
    return f"-{off}+{on}" if off or on else ""


def _longest_part(one: str, other: str) -> tuple[int, int, int]:
    """Where the longest part that both have begins in each, and its length; the first of several."""
    best = (0, 0, 0)
    ends = [0] * (len(other) + 1)
    for place, letter in enumerate(one):
        former = ends[:]
        for where, wanted in enumerate(other):
            ends[where + 1] = former[where] + 1 if letter == wanted else 0
            if ends[where + 1] > best[2]:
                length = ends[where + 1]
                best = (place + 1 - length, where + 1 - length, length)
    return best


def apply_rule(rule: str, form: str) -> str:
    """The lemma of `form` by `rule`; the form itself where the rule takes off more than there is."""
    if rule.startswith("="):
        return rule[1:]
    case, rest = rule.split(":", 1)
    # What is put on may hold a colon: the two parts are cut where the second one begins with a sign.
    tail, head = _parts(rest)
    word = _CASES[case](form)
    off_end, on_end = tail
    off_begin, on_begin = head
    if off_end + off_begin > len(word):
        return form
    return (on_begin + word[off_begin : len(word) - off_end] + on_end) or form


def _parts(text: str) -> tuple[tuple[int, str], tuple[int, str]]:
    for place, letter in enumerate(text):
        if letter == ":":
            tail, head = _read(text[:place]), _read(text[place + 1 :])
            if tail and head:
                return tail, head
    return (0, ""), (0, "")


def _read(change: str) -> tuple[int, str] | None:
    if not change:
        return 0, ""
    off, sign, on = change[1:].partition("+")
    return (int(off), on) if change[0] == "-" and sign and off.isdigit() else None
