"""Rows of tokens in which some are marked: `~number` where there is something to learn.

successors   [1, 90, …, ~13, ~77, …, 2]     what follows a mark is learned (language models, chats)
gaps         [1, 90, ~103, …, 2]            what stood at a mark is learned (masked language models)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recaster.data.token_shards import TokenRows, TokenShard
from recaster.models.losses import NO_TARGET

_MASKED, _REPLACED = 0.8, 0.9
"""Of the chosen tokens 8 in 10 become the mask, 1 another token, and 1 stays (Devlin et al. 2019)."""


class SuccessorRows(TokenRows):
    """One split whose shard has the marks; `labels` of the shard counts them."""

    def targets_in(self, rows: NDArray[np.int64]) -> int:
        """Learned tokens of `rows`."""
        return int(self._shard.labels[rows].sum())

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Marked tokens `(rows, longest)` and what follows each mark `(rows, most marks)`, both filled up."""
        marked = self._shard.padded(rows, self._padding)
        following = np.where(marked < 0, ~marked, marked)[:, 1:]
        return torch.from_numpy(marked), torch.from_numpy(_gather(following, marked[:, :-1] < 0))


class GapRows(TokenRows):
    """One split of plain tokens, some of which are hidden anew for each seed.

    Args:
        mask: the token that stands for a hidden one.
        special: tokens that are never hidden, nor put in the place of others.
        vocabulary: how many tokens there are.
    """

    def __init__(
        self, shard: TokenShard, *, padding: int, mask: int, special: Sequence[int], vocabulary: int
    ) -> None:
        super().__init__(shard, padding=padding)
        self._mask = mask
        self._special = np.array([*special, padding, mask])
        self._ordinary = np.setdiff1d(np.arange(vocabulary), self._special)

    def targets_in(self, rows: NDArray[np.int64]) -> int:
        """Hidden tokens of `rows`."""
        return int(self._shard.labels[rows].sum())

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Tokens `(rows, longest)` with gaps, and what stood there `(rows, most gaps)`, both filled up.

        Which are hidden depends on the seed and the row alone; without a seed they are always the same.
        """
        tokens = self._shard.padded(rows, self._padding)
        given, hidden = tokens.copy(), np.zeros(tokens.shape, dtype=bool)
        for place, row in enumerate(rows.tolist()):
            random = np.random.default_rng([0 if seed is None else seed + 1, row])
            self._hide(given[place], hidden[place], int(self._shard.labels[row]), random)
        return torch.from_numpy(np.where(hidden, ~given, given)), torch.from_numpy(_gather(tokens, hidden))

    def _hide(
        self,
        tokens: NDArray[np.int64],
        hidden: NDArray[np.bool_],
        count: int,
        random: np.random.Generator,
    ) -> None:
        """Choose `count` places of one row, and put there what the model sees."""
        eligible = np.flatnonzero(~np.isin(tokens, self._special))
        chosen = np.sort(random.choice(eligible, count, replace=False))
        hidden[chosen] = True
        fate, others = random.random(count), random.choice(self._ordinary, count)
        seen = np.where(fate < _REPLACED, others, tokens[chosen])
        tokens[chosen] = np.where(fate < _MASKED, self._mask, seen)


def count_gaps(tokens: Sequence[int], special: Sequence[int], fraction: float) -> int:
    """How many tokens of a row are hidden: the fraction of those that are not special, and at least one."""
    eligible = int((~np.isin(np.array(tokens), np.array(special))).sum())
    return min(eligible, max(1, round(fraction * eligible)))


def _gather(values: NDArray[np.int64], marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The marked of `values` `(rows, tokens)`: `(rows, most marks)`, then NO_TARGET."""
    counts = marks.sum(1)
    found = np.full((len(values), int(counts.max(initial=1))), NO_TARGET, dtype=np.int64)
    found[np.arange(found.shape[1]) < counts[:, None]] = values[marks]
    return found
