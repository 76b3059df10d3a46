"""Rows of unequal length read backwards, so that what fills them up still comes last.

This file imports only torch: its text travels with the exported models that use it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def turn_around(counted: Tensor) -> Tensor:
    """For each row the places of its real tokens in reverse, then the others, `(rows, tokens)`.

    Args:
        counted: which tokens are real, `(rows, tokens)`.
    """
    places = torch.arange(counted.shape[1], device=counted.device)
    lengths = counted.sum(1, keepdim=True)
    return torch.where(counted, lengths - 1 - places, places)


def take_places(states: Tensor, places: Tensor) -> Tensor:
    """`states` `(rows, tokens, width)` in the order of `places`; twice in `turn_around`'s is as before."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[2]))
