"""Trees for people: arcs over the words as SVG, or with lines and corners in a terminal.

  ┌─ The      det
┌─┴─ cat      nsubj
┴─── sleeps   root
└─── .        punct
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from recaster.core.errors import DataError
from recaster.models.conllu import Sentence, find_cycle

_LETTER, _GAP, _LEVEL = 8.5, 26, 26
"""Pixels: a letter's width, between words, between arcs above each other."""
_FONT = "font-family='DejaVu Sans, Arial, sans-serif'"


def draw_text(sentence: Sentence) -> str:
    """A line for each word: its arcs at the left, then the form, the part of speech and the relation.

    Raises:
        DataError: the sentence has no tree.
    """
    heads = _heads(sentence)
    levels = _levels(heads)
    width = max(levels.values(), default=0) + 1
    grid = [[[False] * 4 for _ in range(width)] for _ in heads]  # up, down, left, right of each cell
    tips = [False] * len(heads)
    for number, head in enumerate(heads, start=1):
        if head:
            _draw_arc(grid, tips, word=number - 1, head=head - 1, column=width - 1 - levels[number])
    forms = max(len(word.form) for word in sentence.words)
    tags = max(len(word.upos) for word in sentence.words)
    lines = []
    for row, word in enumerate(sentence.words):
        arcs = "".join(_corner(*cell) for cell in grid[row])
        mark = "> " if tips[row] else "* " if not heads[row] else "  "
        lines.append(f"{arcs}{mark}{word.form:<{forms}}  {word.upos:<{tags}}  {word.deprel}".rstrip())
    return "\n".join(lines) + "\n"


def _heads(sentence: Sentence) -> list[int]:
    heads = [word.head for word in sentence.words]
    whole = [head for head in heads if head is not None and head <= len(heads)]
    if len(whole) < len(heads) or find_cycle(whole):
        raise DataError(
            "This sentence has no tree to draw.",
            where=sentence.comment("sent_id") or sentence.text()[:60],
            value="a head is missing or no word of it, or words depend on each other in a circle",
            repair="parse it first with `recaster predict`",
        )
    return whole


def _levels(heads: Sequence[int]) -> dict[int, int]:
    """How far from the words each arc runs, so that none lies upon another: short ones near."""
    arcs = sorted((abs(head - word), word) for word, head in enumerate(heads, start=1) if head)
    taken: list[list[tuple[int, int]]] = []
    levels: dict[int, int] = {}
    for _, word in arcs:
        low, high = sorted((word, heads[word - 1]))
        level = 0
        while level < len(taken) and any(low <= end and begin <= high for begin, end in taken[level]):
            level += 1
        if level == len(taken):
            taken.append([])
        taken[level].append((low, high))
        levels[word] = level
    return levels


def _draw_arc(grid: list[list[list[bool]]], tips: list[bool], *, word: int, head: int, column: int) -> None:
    up, down, left, right = range(4)
    low, high = sorted((word, head))
    for row in range(low, high + 1):
        grid[row][column][down] |= row < high
        grid[row][column][up] |= row > low
    for row in (word, head):
        grid[row][column][right] = True
        for cell in grid[row][column + 1 :]:
            cell[left] = cell[right] = True
    tips[word] = True


def _corner(up: bool, down: bool, left: bool, right: bool) -> str:
    corners = " ╶╴─╷┌┐┬╵└┘┴│├┤┼"
    return corners[8 * up + 4 * down + 2 * left + right]


def draw_svg(sentence: Sentence) -> str:
    """Arcs above the words from heads to dependents, with their relations; forms, parts of speech below.

    Raises:
        DataError: the sentence has no tree.
    """
    heads = _heads(sentence)
    levels = _levels(heads)
    middles, end = [], float(_GAP) / 2
    for word in sentence.words:
        size = _LETTER * max(len(word.form), len(word.upos) * 0.8, len(word.deprel) * 0.85)
        middles.append(end + size / 2)
        end += size + _GAP
    base = _LEVEL * (max(levels.values(), default=0) + 2)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{end:.0f}' height='{base + 52:.0f}' {_FONT}>",
        "<rect width='100%' height='100%' fill='white'/>",
    ]
    for number, word in enumerate(sentence.words, start=1):
        x, head = middles[number - 1], heads[number - 1]
        parts.append(_text(x, base + 22, word.form, size=14, colour="#111"))
        parts.append(_text(x, base + 40, word.upos, size=11, colour="#666"))
        if head:
            top = base - _LEVEL * (levels[number] + 0.9)
            parts.append(_arc(middles[head - 1], x, base=base, top=top, relation=word.deprel))
        else:
            parts.append(f"<path d='M{x:.1f},4 V{base - 4:.1f}' stroke='#b33' fill='none'/>")
            parts += [_tip(x, base), _text(x + 16, 14, word.deprel, size=11, colour="#b33")]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arc(start: float, end: float, *, base: float, top: float, relation: str) -> str:
    # A head's arcs leave beside its middle, where arrows end.
    start += 5 if end > start else -5
    bend = min(10.0, abs(end - start) / 2)
    aside = bend if end > start else -bend
    path = (
        f"M{start:.1f},{base:.1f} V{top + bend:.1f} Q{start:.1f},{top:.1f} {start + aside:.1f},{top:.1f} "
        f"H{end - aside:.1f} Q{end:.1f},{top:.1f} {end:.1f},{top + bend:.1f} V{base - 4:.1f}"
    )
    label = _text((start + end) / 2, top - 3, relation, size=11, colour="#246")
    return f"<path d='{path}' stroke='#468' fill='none'/>{_tip(end, base)}{label}"


def _tip(x: float, base: float) -> str:
    left, right, top = x - 3.5, x + 3.5, base - 7
    return f"<path d='M{left:.1f},{top:.1f} L{x:.1f},{base:.1f} L{right:.1f},{top:.1f} Z' fill='#468'/>"


def _text(x: float, y: float, text: str, *, size: int, colour: str) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{colour}' text-anchor='middle'>"
        f"{escape(text)}</text>"
    )
