"""The loss of a parser: of each word its head, its relation and its tags, each with its weight.

Targets are `(rows, words, 6)`: head, relation, and the places of UPOS, XPOS, features and lemma rule among
all tags; -1 where there is nothing to learn. What the network says is normalised already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_HEAD, _RELATION, _TAGS = 0, 1, 2


def parsing_loss(seen: Tensor, targets: Tensor, *, weights: Sequence[float]) -> Tensor:
    """Nats, weighed and summed over words, shape `()`.

    Args:
        seen: `(rows, words, slots, 1 + relations)`, see `models.dependency_parser.DependencyParser.forward`.
        weights: of head, relation, UPOS, XPOS, features and lemma.
    """
    slots = seen.shape[2] - seen.shape[1] - 1
    heads = targets[:, :, _HEAD].clamp(min=0)
    chosen = take_heads(seen[:, :, slots:], heads)
    relations = 1 + targets[:, :, _RELATION].clamp(min=0)
    tags = seen[:, :, :slots].flatten(2).gather(2, targets[:, :, _TAGS:].clamp(min=0))
    told = torch.cat([chosen[:, :, :1], chosen.gather(2, relations[:, :, None]), tags], 2)
    return -(told * (targets >= 0) * told.new_tensor(weights)).sum()


def take_heads(trees: Tensor, heads: Tensor) -> Tensor:
    """What is said of each word and its head, `(rows, words, 1 + relations)`.

    Args:
        trees: `(rows, words, words + 1, 1 + relations)`.
        heads: `(rows, words)`.
    """
    places = heads[:, :, None, None].expand(-1, -1, 1, trees.shape[3])
    return trees.gather(2, places)[:, :, 0]


@torch.no_grad()
def count_attached(seen: Tensor, targets: Tensor) -> Tensor:
    """How many words have the right head and relation as their likeliest, before any tree is found."""
    slots = seen.shape[2] - seen.shape[1] - 1
    trees = seen[:, :, slots:]
    heads = trees[..., 0].argmax(2)
    relations = take_heads(trees, heads)[:, :, 1:].argmax(2)
    return ((heads == targets[:, :, _HEAD]) & (relations == targets[:, :, _RELATION])).sum()
