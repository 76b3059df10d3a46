"""What networks from one sequence to another share: rows of both sides in one tensor, and writing the second.

This file imports only torch: a copy of it travels with every exported model within `modeling.py`.

row      [ 5  90  41  2 | ~6  ~17  ~33 | 2  0 ]    source, then what the decoder is given, marked (`~number`)
logits                    17   33    2             of what follows each mark
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

_NEVER = -1.0e9
"""The score of a hypothesis that is none."""


class Seq2Seq(Protocol):
    """A network that reads one sequence and writes another, token after token."""

    padding: int
    end: int

    def read(self, source: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What is kept of sources `(rows, tokens)` while their translations are written.

        Returns:
            Of each source, first dimension `rows`; and what changes with each token, of which every
            hypothesis has its own.
        """

    def advance(
        self, tokens: Tensor, memory: list[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits `(rows x hypotheses, vocabulary)` of what follows `tokens`, and the new past.

        Args:
            tokens: the newest of each hypothesis `(rows x hypotheses,)`, those of one source together.
        """


def split_rows(rows: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """Sources, and what the decoder is given, out of rows that hold both.

    Returns:
        `(rows, longest source)` and `(rows, most marks)`, each filled up at its end.
    """
    marked = rows < 0
    starts, counts = marked.byte().argmax(1, keepdim=True), marked.sum(1, keepdim=True)
    longest, most = torch.stack([starts.max(), counts.max()]).tolist()
    columns = torch.arange(max(longest, most), device=rows.device)
    source = rows[:, :longest].where(columns[:longest] < starts, padding)
    places = (starts + columns[:most]).clamp(max=rows.shape[1] - 1)
    given = rows.gather(1, places)
    return source, torch.where(given < 0, ~given, padding)


@torch.no_grad()
def write_beams(
    network: Seq2Seq,
    source: Tensor,
    starts: Tensor,
    *,
    beams: int,
    length_penalty: float,
    longest: int,
) -> list[list[int]]:
    """The best translation that beam search finds of each source, without its end.

    A hypothesis scores the sum of its log probabilities over its length, the end counted, to the power of
    `length_penalty`. The rules are those of `generate` of the transformers library (early_stopping off), so
    that both find the same: in each step the 2 x beams best go on, ends among the first `beams` of them are
    finished, and a source is done when its best open hypothesis is worse than all `beams` finished ones. A
    source that is done takes no more time.

    Args:
        source: `(rows, tokens)`, filled up with the padding token.
        starts: what each translation begins with, `(rows,)`.
        longest: tokens of a translation, its end included.
    """
    if beams == 1:
        return write_tokens(network, source, starts, longest=longest)
    memory, past = network.read(source)
    past = [_repeat(value, beams) for value in past]
    found = _Finished(len(source), beams, longest, like=source)
    numbers = torch.arange(len(source), device=source.device)
    tokens = starts.repeat_interleave(beams)
    scores = torch.full((len(source), beams), _NEVER, device=source.device)
    scores[:, 0] = 0.0  # the hypotheses of a source are alike at first: one stands for all
    written = tokens.new_full((len(source), beams, longest), network.padding)
    for length in range(1, longest + 1):
        logits, past = network.advance(tokens, memory, past)
        chances = logits.float().log_softmax(-1).view(len(numbers), beams, -1) + scores[:, :, None]
        best, places = chances.flatten(1).topk(2 * beams)
        parents, following = places // logits.shape[1], places % logits.shape[1]
        texts = written.gather(1, parents[:, :, None].expand(-1, -1, longest))
        texts[:, :, length - 1] = following
        over = (following == network.end) | (length == longest)
        found.add(numbers, texts[:, :beams], best[:, :beams] / length**length_penalty, over[:, :beams])
        scores, kept = best.masked_fill(over, _NEVER).topk(beams)
        open_ones = scores[:, 0] / length**length_penalty > found.worst(numbers)
        if length == longest or not bool(open_ones.any()):
            break
        written = texts.gather(1, kept[:, :, None].expand(-1, -1, longest))
        rows = torch.arange(len(numbers), device=source.device)[:, None] * beams + parents.gather(1, kept)
        tokens = following.gather(1, kept)
        if not bool(open_ones.all()):
            rows, tokens, scores = rows[open_ones], tokens[open_ones], scores[open_ones]
            written, numbers = written[open_ones], numbers[open_ones]
            memory = [value[open_ones] for value in memory]
        past, tokens = [value.index_select(0, rows.flatten()) for value in past], tokens.flatten()
    return [cut_end(row, network.end, network.padding) for row in found.best()]


class _Finished:
    """The best finished hypotheses of each source, the best first."""

    def __init__(self, rows: int, beams: int, longest: int, *, like: Tensor) -> None:
        self._scores = torch.full((rows, beams), _NEVER, device=like.device)
        self._texts = like.new_zeros((rows, beams, longest))
        self._beams = beams

    def add(self, numbers: Tensor, texts: Tensor, scores: Tensor, over: Tensor) -> None:
        """Take those of sources `numbers` that are `over`, `(sources, beams)`."""
        merged = torch.cat([self._scores[numbers], scores.masked_fill(~over, _NEVER)], 1)
        best, places = merged.topk(self._beams)
        both = torch.cat([self._texts[numbers], texts], 1)
        self._scores[numbers] = best
        self._texts[numbers] = both.gather(1, places[:, :, None].expand(-1, -1, both.shape[2]))

    def worst(self, numbers: Tensor) -> Tensor:
        """The worst score of each of `numbers`; what none can be below while some are missing."""
        return self._scores[numbers, -1]

    def best(self) -> list[list[int]]:
        rows: list[list[int]] = self._texts[:, 0].tolist()
        return rows


@torch.no_grad()
def write_tokens(
    network: Seq2Seq,
    source: Tensor,
    starts: Tensor,
    *,
    longest: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """One translation of each source, token after token, without its end; as `write_beams`.

    Args:
        temperature: 0 takes the likeliest token; else logits are divided by it and tokens drawn.
        top_p: draw among the likeliest tokens that have this share together (Holtzman et al. 2020).
        seed: of the draws.
    """
    chance = torch.Generator(device=source.device).manual_seed(seed)
    memory, past = network.read(source)
    numbers, tokens = torch.arange(len(source), device=source.device), starts
    written = source.new_full((len(source), longest), network.end)
    for length in range(longest):
        logits, past = network.advance(tokens, memory, past)
        tokens = _draw(logits.float(), temperature, top_p, chance) if temperature else logits.argmax(-1)
        written[numbers, length] = tokens
        on = tokens != network.end
        if not bool(on.any()):
            break
        if not bool(on.all()):
            numbers, tokens = numbers[on], tokens[on]
            memory, past = [value[on] for value in memory], [value[on] for value in past]
    return [cut_end(row, network.end, network.padding) for row in written.tolist()]


def _draw(logits: Tensor, temperature: float, top_p: float, chance: torch.Generator) -> Tensor:
    shares, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    # What is before a token has to have less than top_p: the first is always in.
    shares = shares.masked_fill(shares.cumsum(-1) - shares >= top_p, 0.0)
    return order.gather(1, torch.multinomial(shares, 1, generator=chance))[:, 0]


def cut_end(row: Sequence[int], end: int, padding: int) -> list[int]:
    """The tokens before the end, without what fills up."""
    kept = list(row)
    if end in kept:
        kept = kept[: kept.index(end)]
    return [token for token in kept if token != padding]


def _repeat(value: Tensor, beams: int) -> Tensor:
    return value.repeat_interleave(beams, 0)
