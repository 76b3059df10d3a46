"""Prepared pairs of replies: two shards of marked tokens, and what the base thinks of each.

train.tokens.npy            … wake me at six … ~13 ~77 2     the conversation with the chosen reply
rejected-train.tokens.npy   … wake me at six … ~41 2         and with the rejected one, row by row
train.reference.npy         [[-14.2, -9.7], …]               nats: log-probabilities of both by the base

Only the tokens of the last reply are marked. Held-out pairs have their texts too, as `chat_shards` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.data.chat_shards import write_encoded
from recaster.data.chat_sources import Message, parse_pair
from recaster.data.marked_rows import SuccessorRows
from recaster.data.token_shards import TokenShard, read_token_shard
from recaster.models.losses import NO_TARGET
from recaster.models.token_scores import score_replies

if TYPE_CHECKING:
    from recaster.data.chat_tokens import ChatTokenizer, EncodedChat
    from recaster.data.packed import PackedRecord


def rejected_of(split: str) -> str:
    """The name of a split's second shard."""
    return f"rejected-{split}"


class PreferenceRows:
    """One split, a pair a row.

    Args:
        sides: the rows with the chosen replies, and those with the rejected ones.
        reference: `(pairs, 2)` nats, see `read_reference`.
    """

    uniform = False

    def __init__(
        self, sides: Sequence[SuccessorRows], reference: NDArray[np.float64], *, padding: int
    ) -> None:
        self._sides, self._reference, self._padding = list(sides), reference, padding
        self.lengths: NDArray[np.int64] = np.stack([side.lengths for side in sides], 1)

    def __len__(self) -> int:
        """Pairs of the split."""
        return len(self._reference)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of `rows`."""
        return self._sides[0].ids(rows)

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:
        """Marked tokens `(rows, 2, longest)`, the chosen first, and what `models.preference_loss` wants.

        That is `(rows, 2, 1 + most marks)` float64: the base's log-probability, then what follows each
        mark; numbers of tokens are exact in it.
        """
        sides = [side.batch(rows, seed=seed) for side in self._sides]
        tokens = _stack([tokens for tokens, _ in sides], self._padding)
        targets = _stack([targets for _, targets in sides], NO_TARGET)
        reference = torch.from_numpy(self._reference[rows])
        return tokens, torch.cat([reference[..., None], targets.double()], 2)


def open_preference_rows(folder: Path, split: str, *, padding: int) -> PreferenceRows:
    """One prepared split, memory-mapped."""
    sides = [
        SuccessorRows(read_token_shard(folder, name), padding=padding) for name in (split, rejected_of(split))
    ]
    return PreferenceRows(sides, read_reference(folder, split), padding=padding)


def _stack(sides: Sequence[Tensor], value: int) -> Tensor:
    """`(rows, 2, columns)` of two `(rows, …)`, the narrower of which is filled up."""
    widest = max(side.shape[1] for side in sides)
    return torch.stack([F.pad(side, (0, widest - side.shape[1]), value=value) for side in sides], 1)


def write_preference_shard(
    folder: Path, name: str, records: Sequence[PackedRecord], *, tokenizer: ChatTokenizer, longest: int
) -> dict[str, Any]:
    """Write one split, the held-out ones in order of length.

    Args:
        longest: tokens of a row; of a longer conversation the earliest turns are left out, and what is still
            too long is cut. A pair of which nothing is left to tell apart is left out.

    Returns:
        Counts for people and later steps.
    """
    pairs = [_encode(record, tokenizer, longest) for record in records]
    kept = [row for row, pair in enumerate(pairs) if _tells_apart(pair)]
    if name != "train":
        kept.sort(key=lambda row: len(pairs[row][0].tokens))
    ids = [records[row].id for row in kept]
    written = [
        write_encoded(folder, shard, [pairs[row][side] for row in kept], ids, texts=name != "train")
        for side, shard in enumerate((name, rejected_of(name)))
    ]
    return {
        "rows": len(kept),
        **{key: sum(side[key] for side in written) for key in ("tokens", "learned_tokens")},
        "truncated": float(np.mean([any(one.truncated for one in pair) for pair in pairs])) if pairs else 0.0,
        "nothing_learned": len(pairs) - len(kept),
    }


def _encode(record: PackedRecord, tokenizer: ChatTokenizer, longest: int) -> list[EncodedChat]:
    """Both continuations, of the same turns."""
    messages, rejected = parse_pair(record.text)
    assert rejected is not None  # noqa: S101 - the contract's rule
    replies: list[Message] = [messages[-1], {"role": "assistant", "content": rejected}]
    prompt, shortened = messages[:-1], False
    while True:
        pair = [tokenizer.encode_reply([*prompt, reply], longest) for reply in replies]
        first = 1 if prompt[0]["role"] == "system" else 0
        if not any(one.truncated for one in pair) or len(prompt) - first < 3:
            return [replace(one, truncated=one.truncated or shortened) for one in pair]
        prompt, shortened = [*prompt[:first], *prompt[first + 2 :]], True


def _tells_apart(pair: Sequence[EncodedChat]) -> bool:
    return all(any(one.learned[1:]) for one in pair) and pair[0].tokens != pair[1].tokens


def write_reference(folder: Path, splits: Sequence[str], base: nn.Module, *, padding: int) -> None:
    """Write what the base, a model of marked tokens, thinks of each pair."""
    for split in splits:
        sides = [
            score_side(base, read_token_shard(folder, name), padding=padding)
            for name in (split, rejected_of(split))
        ]
        np.save(_reference(folder, split), np.stack(sides, 1))


def score_side(model: nn.Module, shard: TokenShard, *, padding: int) -> NDArray[np.float64]:
    """Log-probabilities (nats) of one shard's replies by a model of marked tokens, `(pairs,)`."""
    rows = SuccessorRows(shard, padding=padding)
    return score_replies(model, rows.lengths, partial(rows.batch, seed=None))


def holds_pairs(folder: Path, split: str) -> bool:
    """Whether the prepared split is one of pairs."""
    return _reference(folder, split).exists()


def _reference(folder: Path, split: str) -> Path:
    return folder / f"{split}.reference.npy"


def read_reference(folder: Path, split: str) -> NDArray[np.float64]:
    """`(pairs, 2)` nats: the base's log-probabilities of the chosen and the rejected reply."""
    reference: NDArray[np.float64] = np.load(_reference(folder, split))
    return reference
