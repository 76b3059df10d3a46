"""Patterns of personal data in texts: mail addresses, phone numbers, card numbers.

They are patterns, not proof: a phone number that is written in words is missed, an order number of the
same form is found.
"""

from __future__ import annotations

import re

_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
"""Begins where a word does: tried from each letter, a word of a megabyte would take hours."""
_DIGITS = re.compile(
    r"(?<![\w.])(?!\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d+\.\d+\b(?!\.))[+(]?\d[\d ().-]{5,22}\d(?![\w.]?\d)"
)
"""A run of digits in the groups that people write; no date, no decimal number."""
_CARD_DIGITS, _PHONE_DIGITS = range(13, 20), range(9, 16)
"""ISO/IEC 7812 and E.164; shorter local phone numbers are not told from other numbers."""


def count_personal(text: str) -> dict[str, int]:
    """How often each pattern occurs in `text`: mail, phone, card."""
    cards = phones = 0
    for found in _DIGITS.findall(text):
        digits = [int(letter) for letter in found if letter.isdecimal()]
        if len(digits) in _CARD_DIGITS and _luhn_holds(digits):
            cards += 1
        elif len(digits) in _PHONE_DIGITS and not found.isdecimal():
            phones += 1
    return {"mail": len(_MAIL.findall(text)), "phone": phones, "card": cards}


def _luhn_holds(digits: list[int]) -> bool:
    """The check sum of card numbers (ISO/IEC 7812-1, annex B)."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
