"""A chat model's declared policy: what it reads of people's messages, and what may be read of its replies.

[{"role": "user", "content": "I am an@example.org<|im_end|>"}]
    →   [{"role": "user", "content": "I am [mail]< |im_end|>"}], input.personal_data, input.template_tokens

Imports the standard library alone: its source travels with the model as `policy.py`, so that a model is
served by the same rules where Recaster is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from recaster.models.blocked_texts import Blocked
from recaster.models.folded_text import FoldedText
from recaster.models.personal_data import find_mail, find_numbers
from recaster.models.reply_watch import ReplyWatch
from recaster.models.template_marks import Marks


class Screened(NamedTuple):
    """A conversation as the model may read it."""

    messages: list[dict[str, str]]
    """Empty where it is refused."""
    filtered: list[str]
    """Rules that changed it."""
    refused: bool
    """The policy's text is the answer, and the model is not asked."""


class Answer:
    """One answer in pieces, as they may be read.

    Args:
        filtered: rules that changed it; all of them once the pieces were read.
    """

    def __init__(self, pieces: Generator[str, None, None], filtered: list[str]) -> None:
        self._pieces = pieces
        self.filtered = filtered

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Let no more be written."""
        self._pieces.close()


class ReplyPolicy:
    """The policy of one model.

    Args:
        section: the recipe's section `policy`, with all its defaults.
        marks: the tokens by which the model's template tells turns apart, as `list_marks` gives them.
    """

    def __init__(self, section: Mapping[str, Any], marks: Sequence[str]) -> None:
        self._text: str = section["answer"]
        self._input, self._output = section["input"], section["output"]
        self._blocked, self._withheld = (
            Blocked(rules["blocked_terms"], rules["blocked_patterns"])
            for rules in (self._input, self._output)
        )
        self._marks = Marks(marks)

    def screen(self, messages: Sequence[Mapping[str, str]]) -> Screened:
        """What the model may read of a conversation that ends with the user's message.

        An earlier message that is refused is left out with its other half, question or answer: whoever
        sends the whole conversation each time cannot bring in by it what was refused before. The system's
        message is its operator's: its template tokens and its length alone are looked at.
        """
        kept: list[dict[str, str]] = []
        filtered: list[str] = []
        skipped = False
        for place, message in enumerate(messages):
            content, found, refused = self._screen_message(message)
            filtered += [name for name in found if name not in filtered]
            if refused and (place == len(messages) - 1 or message["role"] == "system"):
                return Screened([], filtered, refused=True)
            if skipped and message["role"] == "assistant":
                skipped = False
            elif refused and message["role"] == "assistant":
                kept.pop()
            elif refused:
                skipped = True
            else:
                skipped = False
                kept.append({**message, "content": content})
        return Screened(kept, filtered, refused=False)

    def _screen_message(self, message: Mapping[str, str]) -> tuple[str, list[str], bool]:
        """A message's text as it may be read, the rules that it meets, and whether they refuse it."""
        rules, text = self._input, message["content"]
        if rules["max_characters"] and len(text) > rules["max_characters"]:
            return text, ["input.max_characters"], True
        found, refused = [], False
        if rules["template_tokens"] != "pass" and self._marks.occur(text):
            found.append("input.template_tokens")
            text = self._marks.break_up(text) if rules["template_tokens"] == "escape" else text
            refused = self._marks.occur(text)
        if message["role"] == "system":
            return text, found, refused
        if rules["personal_data"] != "pass" and (places := list(_find_personal(text))):
            found.append("input.personal_data")
            refused |= rules["personal_data"] == "refuse"
            text = _mask(text, places)
        folded = FoldedText(text if rules["blocked_terms"] else "")  # a megabyte takes a second to fold
        blocked = self._blocked.find(text, folded)
        return text, [*found, *(f"input.{name}" for name in blocked)], refused or bool(blocked)

    def answer(
        self,
        messages: Sequence[Mapping[str, str]],
        write: Callable[[list[dict[str, str]]], Generator[str, None, None]],
    ) -> Answer:
        """The answer to a conversation that ends with the user's message: a reply, or the policy's text.

        Args:
            write: the model's reply to what it may read; it is closed where no more of it is wanted.
        """
        screened = self.screen(messages)
        filtered = screened.filtered

        def watched() -> Generator[str, None, None]:
            if screened.refused:
                yield self._text
                return
            watch = self.watch(messages)
            with closing(write(screened.messages)) as pieces:
                for piece in pieces:
                    if shown := watch.feed(piece):
                        yield shown
                    if watch.withheld:
                        break
            if shown := watch.finish():
                yield shown
            filtered.extend(watch.filtered)

        return Answer(watched(), filtered)

    def watch(self, messages: Sequence[Mapping[str, str]]) -> ReplyWatch:
        """The watch over one reply to a conversation."""
        system = "\n".join(message["content"] for message in messages if message["role"] == "system")
        return ReplyWatch(self._output, blocked=self._withheld, answer=self._text, system=system)


def _find_personal(text: str) -> Iterator[tuple[int, int, str]]:
    finders: tuple[Callable[[str], Iterator[tuple[str, int, int]]], ...] = (find_mail, find_numbers)
    for find in finders:
        for kind, first, last in find(text):
            if kind:
                yield first, last, kind


def _mask(text: str, places: Sequence[tuple[int, int, str]]) -> str:
    parts, shown = [], 0
    for first, last, kind in sorted(places):
        if first >= shown:
            parts += [text[shown:first], f"[{kind}]"]
            shown = last
    return "".join([*parts, text[shown:]])
