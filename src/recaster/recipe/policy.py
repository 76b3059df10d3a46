"""The recipe's `policy` section: what a chat model reads of messages, and what may be read of its replies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from recaster.recipe.section import Section

if TYPE_CHECKING:
    from recaster.recipe.schema import Recipe

CHAT = "chat"
LEAKS = ("leak_resistance", "leak_resistance_unfiltered")
"""Metrics of a secret that people ask for."""
_MOST_WORK = 10_000
"""Ways to try a pattern at one place of a text, times its length. With texts that have an end, that bounds
the whole search: no message can keep the server busy."""


def _term(text: str) -> str:
    if not any(letter.isalnum() for letter in text):
        raise ValueError(f"blocked term {text!r} has neither letter nor digit; remove it, or use a pattern")
    return text


def _pattern(text: str) -> str:
    """Refuse a regular expression whose search could take long, or that finds an empty place."""
    from re import _parser  # type: ignore[attr-defined] # the standard library's own, without a public door

    try:
        re.compile(text)
        parsed = _parser.parse(text)
    except re.error as error:
        raise ValueError(f"blocked pattern {text!r} is no regular expression: {error}; correct it") from error
    try:
        ways = _count_ways(parsed)
    except ValueError as error:
        raise ValueError(f"blocked pattern {text!r} {error}") from error
    shortest, longest = parsed.getwidth()
    if shortest < 1:
        raise ValueError(f"blocked pattern {text!r} matches the empty text; make a part of it obligatory")
    if (work := ways * longest) > _MOST_WORK:
        raise ValueError(
            f"blocked pattern {text!r} can be tried in {ways} ways over {longest} characters, {work} in all, "
            f"and {_MOST_WORK} are allowed; use narrower counts, or several patterns"
        )
    return text


def _count_ways(parsed: Any) -> int:
    """In how many ways at most a matcher that goes back can try a pattern at one place.

    Raises:
        ValueError: there is no bound, or it looks at what is not there yet while a reply is written.
    """
    ways = 1
    for operation, told in parsed:
        ways *= _count_item(str(operation), told)
    return ways


def _count_item(operation: str, told: Any) -> int:
    if operation in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
        return 1
    if operation == "AT" and str(told) in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
        return 1
    if operation == "BRANCH":
        return sum(_count_ways(part) for part in told[1])
    if operation == "SUBPATTERN":
        return _count_ways(told[3])
    if operation in ("MAX_REPEAT", "MIN_REPEAT"):
        return _count_repeats(*told)
    raise ValueError(
        "uses more than letters, classes, groups, |, \\b and bounded counts; write it without anchors, "
        "back references and lookaround"
    )


def _count_repeats(least: int, most: int, part: Any) -> int:
    if most > _MOST_WORK:
        raise ValueError("repeats without an upper bound; write {0,40} for *, and {1,40} for +")
    inner, ways, total = _count_ways(part), 1, 0
    for count in range(most + 1):
        total += ways if count >= least else 0
        ways *= inner
        if total > _MOST_WORK:
            break  # too many already, and the numbers grow long
    return total


Term = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_term)]
Pattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_pattern)]


class InputRules(Section):
    """What of people's messages the model reads."""

    personal_data: Literal["pass", "mask", "refuse"] = "pass"
    """Mail addresses, phone and card numbers, found by pattern: mask puts [mail], [phone], [card] in their
    place; refuse answers with the policy's text."""
    blocked_terms: list[Term] = Field(default_factory=list, max_length=1000)
    """Words, or several in a row, whatever their case and accents: such a message is refused."""
    blocked_patterns: list[Pattern] = Field(default_factory=list, max_length=50)
    """Likewise regular expressions as Python has them, of bounded length: without `*`, `+`, anchors, back
    references and lookaround. They need `max_characters`."""
    template_tokens: Literal["pass", "escape", "refuse"] = "escape"
    """The model's own marks between turns, such as <|im_end|>, in a message: escape breaks them up, so that
    they are read as letters; pass lets a message speak in another one's role."""
    max_characters: int | None = Field(default=None, ge=1, le=1_000_000)
    """Of one message; a longer one is refused."""

    @model_validator(mode="after")
    def _search_is_bounded(self) -> InputRules:
        if self.blocked_patterns and self.max_characters is None:
            raise ValueError(
                "blocked_patterns takes time by a message's length; give max_characters, such as 20000"
            )
        return self


class OutputRules(Section):
    """What of the model's replies people read."""

    personal_data: Literal["pass", "mask", "refuse"] = "pass"
    """As of `input`; refuse withholds the reply."""
    blocked_terms: list[Term] = Field(default_factory=list, max_length=1000)
    """As of `input`; such a reply is withheld."""
    blocked_patterns: list[Pattern] = Field(default_factory=list, max_length=50)
    """Likewise."""
    system_words: int | None = Field(default=None, ge=2, le=50)
    """A reply that repeats so many words of the system's message in a row is withheld; their case, accents
    and punctuation aside."""


class PolicySection(Section):
    """Filters around a chat model; without this section there are none."""

    answer: str = Field(min_length=1, max_length=2000)
    """In place of a reply to what is refused, and of the part that is withheld: a reply ends before the
    sentence in which that begins."""
    input: InputRules = InputRules()
    output: OutputRules = OutputRules()


def check_policy(recipe: Recipe) -> None:
    """Refuse a policy, and bars for leaks, of a model that does not talk.

    Raises:
        ValueError: with the repair.
    """
    if recipe.policy and recipe.workload != CHAT:
        raise ValueError(
            f"policy belongs to workload {CHAT}, and does nothing for {recipe.workload}; remove it"
        )
    if (metric := recipe.gate.champion.metric) in LEAKS:
        raise ValueError(
            f"gate.champion compares on held-out records, and {metric} is over questions of its own; give it "
            "a bar in gate.bars instead"
        )
    if recipe.workload != CHAT and (named := [bar.metric for bar in recipe.gate.bars if bar.metric in LEAKS]):
        raise ValueError(f"gate.bars names {named[0]}, which belongs to workload {CHAT}; remove it")
