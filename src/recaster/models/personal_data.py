"""Patterns of personal data in texts: mail addresses, phone numbers, card numbers.

They are patterns, not proof: a phone number that is written in words is missed, an order number of the
same form is found. Imports the standard library alone: a policy's source travels with a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
"""Begins where a word does: tried from each letter, a word of a megabyte would take hours."""
_DIGITS = re.compile(
    r"(?<![\w.])(?!\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d+\.\d+\b(?!\.))[+(]?\d(?:[\d ()-]|\.(?=\d)){5,22}\d"
    r"(?![\w.]?\d)"
)
"""A run of digits in the groups that people write; no date, no decimal number, and not over a full stop."""
_CARD_DIGITS, _PHONE_DIGITS = range(13, 20), range(9, 16)
"""ISO/IEC 7812 and E.164; shorter local phone numbers are not told from other numbers."""
NUMBER_CHARACTERS = 32
"""Longer than a number that is found, with what is looked at around it. Mail has no white space in it."""


def find_mail(text: str, start: int = 0) -> Iterator[tuple[str, int, int]]:
    """`mail` and its place, for each address in `text` from `start` on."""
    for found in _MAIL.finditer(text, start):
        yield "mail", *found.span()


def find_numbers(text: str, start: int = 0) -> Iterator[tuple[str, int, int]]:
    """phone, card or nothing, and its place, for each run of digits in `text` from `start` on."""
    for found in _DIGITS.finditer(text, start):
        yield _name_number(found[0]), *found.span()


def count_personal(text: str) -> dict[str, int]:
    """How often each pattern occurs in `text`: mail, phone, card."""
    found = [kind for find in (find_mail, find_numbers) for kind, _, _ in find(text)]
    return {kind: found.count(kind) for kind in ("mail", "phone", "card")}


def _name_number(found: str) -> str:
    """What a run of digits may be; empty: neither."""
    digits = [int(letter) for letter in found if letter.isdecimal()]
    if len(digits) in _CARD_DIGITS and _luhn_holds(digits):
        return "card"
    return "phone" if len(digits) in _PHONE_DIGITS and not found.isdecimal() else ""


def _luhn_holds(digits: list[int]) -> bool:
    """The check sum of card numbers (ISO/IEC 7812-1, annex B)."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
