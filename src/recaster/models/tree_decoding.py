"""The best tree of a sentence by its arcs' scores, with exactly one word at the root.

scores[d][h]  of word d (from 0) depending on word h (from 1); h = 0 is the root   →   a head for each word

find_tree              any tree: Chu and Liu 1965, Edmonds 1967
find_projective_tree   no arcs that cross: Eisner 1996

This file imports only torch: a copy of it travels with every exported parser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recaster.models.conllu import find_cycle


def find_tree(scores: Tensor) -> list[int]:
    """The heads, from 1 and 0 for the root, of the tree with the largest sum; its arcs may cross.

    Where each word's best head gives a tree with one root, that is it. Else every arc from the root is
    made dearer than all others together, so that the best arborescence has one of them and no more.

    Args:
        scores: `(words, words + 1)`; a word's own column is not read.
    """
    rows = scores.double().tolist()
    words = len(rows)
    weights = [[-math.inf] * (words + 1), *rows]
    for word in range(1, words + 1):
        weights[word][word] = -math.inf
    best = _best_heads(weights)
    if best.count(0) == 2 and not find_cycle(best[1:]):  # the root's own entry is 0 too
        return best[1:]
    finite = [score for row in weights for score in row if score > -math.inf]
    penalty = (max(finite) - min(finite) + 1.0) * (words + 1)
    for word in range(1, words + 1):
        weights[word][0] -= penalty
    return _find_arborescence(weights)[1:]


def _best_heads(weights: Sequence[Sequence[float]]) -> list[int]:
    return [0, *(max(range(len(row)), key=row.__getitem__) for row in weights[1:])]


def _find_arborescence(weights: Sequence[Sequence[float]]) -> list[int]:
    """The head of each node in the maximum arborescence from node 0, whose own entry is 0.

    Args:
        weights: `(nodes, nodes)`, row: dependent, column: head.
    """
    heads = _best_heads(weights)
    cycle = find_cycle(heads[1:])
    if not cycle:
        return heads
    inside = set(cycle)
    outside = [node for node in range(len(weights)) if node not in inside]
    # The cycle becomes the last node: an arc out of it leaves from its best node; one into it replaces
    # the arc that it loses least by.
    leaving = [max(cycle, key=weights[node].__getitem__) for node in outside]
    entering = [
        max(cycle, key=lambda node, head=head: weights[node][head] - weights[node][heads[node]])  # type: ignore[misc]
        for head in outside
    ]
    smaller = [
        [*(weights[node][head] for head in outside), weights[node][left]]
        for node, left in zip(outside, leaving, strict=True)
    ]
    into = [
        weights[node][head] - weights[node][heads[node]] for head, node in zip(outside, entering, strict=True)
    ]
    found = _find_arborescence([*smaller, [*into, -math.inf]])
    for place, node in enumerate(outside):
        if node:
            heads[node] = outside[found[place]] if found[place] < len(outside) else leaving[place]
    heads[entering[found[-1]]] = outside[found[-1]]
    return heads


def find_projective_tree(scores: Tensor) -> list[int]:
    """The heads of the tree with the largest sum among those whose arcs do not cross.

    Args:
        scores: `(words, words + 1)`; a word's own column is not read.
    """
    arcs = scores.double()
    spans = _Spans(arcs[:, 1:].cpu())
    spans.fill()
    last = len(arcs) - 1
    root = int((spans.complete[1][0] + spans.complete[0][:, last] + arcs[:, 0].cpu()).argmax())
    heads = [0] * len(arcs)
    spans.read(heads, 0, root, to_left=True)
    spans.read(heads, root, last, to_left=False)
    return heads


class _Spans:
    """Eisner's chart over words from 0: `[0]` of a pair is of spans headed by their left end, `[1]` right."""

    def __init__(self, arcs: Tensor) -> None:
        words = len(arcs)
        self.arcs = arcs
        self.complete = torch.zeros(2, words, words, dtype=arcs.dtype)
        self.linked = torch.zeros(2, words, words, dtype=arcs.dtype)
        # Where each best span is cut; of a link the last word of its left part.
        self.complete_cut = torch.zeros(2, words, words, dtype=torch.long)
        self.linked_cut = torch.zeros(words, words, dtype=torch.long)

    def fill(self) -> None:
        """Find the best span of each width, all of one width together."""
        words = len(self.arcs)
        for width in range(1, words):
            left = torch.arange(words - width)
            right = left + width
            inner = left[:, None] + torch.arange(width)
            begins, ends = left[:, None].expand_as(inner), right[:, None].expand_as(inner)
            best = (self.complete[0][begins, inner] + self.complete[1][inner + 1, ends]).max(1)
            self.linked_cut[left, right] = left + best.indices
            self.linked[0][left, right] = best.values + self.arcs[right, left]
            self.linked[1][left, right] = best.values + self.arcs[left, right]
            onward = (self.linked[0][begins, inner + 1] + self.complete[0][inner + 1, ends]).max(1)
            self.complete[0][left, right] = onward.values
            self.complete_cut[0][left, right] = left + 1 + onward.indices
            back = (self.complete[1][begins, inner] + self.linked[1][inner, ends]).max(1)
            self.complete[1][left, right] = back.values
            self.complete_cut[1][left, right] = left + back.indices

    def read(self, heads: list[int], left: int, right: int, *, to_left: bool) -> None:
        """Write the heads, from 1, of all words of a complete span but of the one that heads it.

        Args:
            to_left: arcs go to the left: the span is headed by its right end.
        """
        cuts = self.complete_cut.tolist()
        links = self.linked_cut.tolist()
        waiting = [(left, right, to_left)]
        while waiting:
            first, last, leftward = waiting.pop()
            if first == last:
                continue
            cut = cuts[leftward][first][last]
            low, high = (cut, last) if leftward else (first, cut)
            heads[low if leftward else high] = (high if leftward else low) + 1
            middle = links[low][high]
            waiting += [(low, middle, False), (middle + 1, high, True)]
            waiting.append((first, cut, True) if leftward else (cut, last, False))
