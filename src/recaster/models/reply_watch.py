"""A policy's watch over one reply while it is written: what is read on never shows what is withheld.

"It is hot. Write to an|na@example.org. The store"     pieces as they are written
"It is hot. "  "Write to [mail]. "                     what is let through, sentence after sentence

Whether something must be withheld is known only when it stands there whole: a term by its last letter, a
run of six words by the sixth. So nothing is let through before as many letters, or words, have followed as
the longest of what is watched for takes; and then by whole sentences, since a reply ends before the
sentence in which what is withheld begins. A watched reply is therefore the same however it is cut in pieces.

Imports the standard library alone: a policy's source travels with a model.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from recaster.models.blocked_texts import Blocked
from recaster.models.folded_text import FoldedText
from recaster.models.personal_data import NUMBER_CHARACTERS, find_mail, find_numbers

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s|[。！？]|\n")
"""One letter of white space at most: more of it may not be there yet."""
_BREAK = re.compile(r"[\s。！？]")
"""Personal data has none of these within, but in numbers, which are short."""


class ReplyWatch:
    """The watch over one reply.

    Args:
        rules: `output` of the policy.
        blocked: its terms and patterns.
        answer: the policy's text, in place of what is withheld.
        system: the system's message, of which no long run of words may be repeated.
    """

    def __init__(self, rules: Mapping[str, Any], *, blocked: Blocked, answer: str, system: str) -> None:
        self.filtered: list[str] = []
        """Rules that changed the reply so far."""
        self.withheld = False
        """The reply has ended with the policy's text; what comes after is let through no more."""
        watched = (rules["blocked_terms"], rules["blocked_patterns"], rules["system_words"])
        self._personal: str = rules["personal_data"]
        self._watches = any(watched) or self._personal != "pass"
        self._blocked, self._answer = blocked, answer
        self._persona = _Persona(system, rules["system_words"])
        self._text, self._folded = "", FoldedText()
        self._decided = self._folded_decided = self._shown = 0
        self._passed = [0, 0]
        """Where the search for mail and for numbers goes on."""
        self._masks: list[tuple[int, int, str]] = []
        self._ends: list[int] = []
        """Where sentences end, up to `_searched`, that were not shown yet."""
        self._searched = 0

    def feed(self, piece: str) -> str:
        """What may be read on once `piece` is written too."""
        return self._go_on(piece, ended=False)

    def finish(self) -> str:
        """The rest, at the reply's end."""
        return self._go_on("", ended=True)

    def _go_on(self, piece: str, *, ended: bool) -> str:
        if self.withheld:
            return ""
        if not self._watches:
            return piece
        self._text += piece
        self._folded.add(piece)
        decided = len(self._text) if ended else self._decide()
        if decided == self._decided and not ended:
            return ""
        hits = [hit for hit in self._find(decided, ended=ended) if hit[1] < decided]
        if hits:
            return self._withhold(hits)
        self._decided = decided
        self._folded_decided = bisect_left(self._folded.places, decided)
        return self._show(decided if ended else self._last_sentence(decided))

    def _decide(self) -> int:
        """Up to where what was written so far is enough to judge by, at a break between words."""
        text, folded = self._text, self._folded
        ends = [self._blocked.decided(text, folded), self._persona.decided(folded)]
        if self._personal != "pass":
            ends.append(len(text) - NUMBER_CHARACTERS)
        end = min(ends)
        while end > self._decided and not _BREAK.match(text[end - 1]):
            end -= 1
        return max(end, self._decided)

    def _find(self, decided: int, *, ended: bool) -> Iterator[tuple[str, int]]:
        """Rules by which something is withheld, and where in the text that begins."""
        yield from self._blocked.find(self._text, self._folded, self._decided, self._folded_decided).items()
        place = self._persona.find(self._folded, ended=ended)
        if place is not None:
            yield "system_words", place
        if self._personal != "pass":
            yield from self._find_personal(decided)

    def _find_personal(self, decided: int) -> Iterator[tuple[str, int]]:
        finders: tuple[Callable[[str, int], Iterator[tuple[str, int, int]]], ...] = (find_mail, find_numbers)
        for number, find in enumerate(finders):
            start = max(self._passed[number], self._decided)
            for kind, first, last in find(self._text, start):
                if first >= decided:
                    break
                self._passed[number] = last
                if kind and self._personal == "refuse":
                    yield "personal_data", first
                    break
                if kind:
                    self._masks.append((first, last, f"[{kind}]"))

    def _withhold(self, hits: Sequence[tuple[str, int]]) -> str:
        first = min(place for _, place in hits)
        shown = self._show(self._last_sentence(first))
        names = sorted({name for name, place in hits if place == first})
        self.filtered += [f"output.{name}" for name in names if f"output.{name}" not in self.filtered]
        self.withheld = True
        return shown + self._answer

    def _last_sentence(self, end: int) -> int:
        """Where the last sentence ends that is over at `end`, no number or address in two parts."""
        found = _SENTENCE_END.finditer(self._text, self._searched, end)
        self._ends = [place for place in self._ends if place > self._shown] + [one.end() for one in found]
        self._searched = end
        whole = [
            place for place in self._ends if not any(first < place < last for first, last, _ in self._masks)
        ]
        return whole[-1] if whole else self._shown

    def _show(self, end: int) -> str:
        """The text from what was shown to `end`, with what is masked."""
        parts = []
        for first, last, name in sorted(mask for mask in self._masks if self._shown <= mask[0] < end):
            if first < self._shown:
                continue  # within one that was masked
            parts += [self._text[self._shown : first], name]
            self._shown = last
            if "output.personal_data" not in self.filtered:
                self.filtered.append("output.personal_data")
        parts.append(self._text[self._shown : end])
        self._shown = max(end, self._shown)
        self._masks = [mask for mask in self._masks if mask[0] >= self._shown]
        return "".join(parts)


class _Persona:
    """Runs of so many words of the system's message.

    Args:
        words: of a run; None: none is looked for.
    """

    def __init__(self, system: str, words: int | None) -> None:
        told = [word for word, _, _ in FoldedText(system).words()]
        self._length = words or 0
        starts = range(len(told) - self._length + 1) if words else ()
        self._runs = {tuple(told[at : at + self._length]) for at in starts}
        self._words: list[tuple[str, int]] = []
        """Words of the reply that have ended, and where each begins in its folded text."""
        self._read = self._judged = 0

    def decided(self, folded: FoldedText) -> int:
        """As of `Blocked`."""
        if not self._runs:
            return folded.place(len(folded.text))
        self._take(folded, ended=False)
        begun = self._words[-self._length + 1 :][:1]  # a run from here on may still be completed
        return folded.place(begun[0][1]) if begun else 0

    def find(self, folded: FoldedText, *, ended: bool) -> int | None:
        """Where in the text the first run begins that was not looked at before; None: there is none."""
        if not self._runs:
            return None
        self._take(folded, ended=ended)
        for first in range(self._judged, len(self._words) - self._length + 1):
            run = tuple(word for word, _ in self._words[first : first + self._length])
            if run in self._runs:
                return folded.place(self._words[first][1])
            self._judged = first + 1
        return None

    def _take(self, folded: FoldedText, *, ended: bool) -> None:
        for word, first, last in folded.words(self._read):
            if last == len(folded.text) and not ended:
                break  # it may go on
            self._words.append((word, first))
            self._read = last
