r"""An automatic judge of replies: a language model that is asked nothing, and only reads.

score(reply) = mean log p(token | conversation, reply so far)
             - mean log p(token | the reply's opening alone, reply so far)
             - share of words that the reply has said before

The first difference is the pointwise mutual information of reply and conversation, per token, which Li et
al. (2016), "A diversity-promoting objective function for neural conversation models", rank replies by:
likelihood alone prefers what is likely anywhere ("I don't know"), and words that repeat. It is a judge of
whether a reply belongs to its conversation, not of whether it is true, kind or useful.

How far to trust it is measured on pairs whose better half is known: `Judge.measure_trust`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed
from recaster.data.marked_rows import SuccessorRows
from recaster.data.token_shards import make_token_shard
from recaster.data.tokenizers import open_tokenizer
from recaster.models.causal_models import foreseeing, open_causal_model
from recaster.models.token_scores import score_tokens

if TYPE_CHECKING:
    from recaster.recipe.evaluation import EvaluateSection

EMPTY = -1e9
"""The score of a reply without a word: below all others."""
TIE = 0.1
"""Nats a token: scores that are nearer are a tie."""
_FEWEST_REPEATED = 4


class Judge:
    """The judge of one set of conversations.

    Args:
        folder: of the model that reads.
        contexts: of each conversation its text up to the reply, as the cast's template writes it.
        wanted: of each conversation people's own reply.
    """

    def __init__(self, folder: Path, contexts: Sequence[str], wanted: Sequence[str]) -> None:
        self._wanted = list(wanted)
        self._tokenizer = open_tokenizer(folder)
        self._model = foreseeing(open_causal_model(folder))
        self._contexts = [self._tokenizer.encode_plain(context) for context in contexts]
        # What all of them end with is the template's: a reply's opening, whatever the conversation.
        ending = _common_ending(contexts)
        self._opening = self._tokenizer.encode_plain(ending) or [self._tokenizer.padding]

    def score(self, replies: Sequence[str]) -> list[float]:
        """The score of a reply to each of the conversations."""
        tokens = [self._tokenizer.encode_plain(reply.strip()) for reply in replies]
        spoken = [place for place, own in enumerate(tokens) if own]
        told = [tokens[place] for place in spoken]
        within = self._foresee([self._contexts[place] for place in spoken], told)
        without = self._foresee([self._opening] * len(told), told)
        scores = [EMPTY] * len(tokens)
        for place, gain in zip(spoken, (within - without).tolist(), strict=True):
            scores[place] = gain - repetition(replies[place])
        return scores

    def _foresee(self, contexts: Sequence[list[int]], replies: Sequence[list[int]]) -> NDArray[np.float64]:
        """Mean log probability of each reply's tokens, `(replies,)`, in nats; no reply is empty."""
        counts = np.array([len(reply) for reply in replies], dtype=np.int64)
        rows = [
            [*before[:-1], *(~token for token in (before[-1], *reply[:-1])), reply[-1]]
            for before, reply in zip(contexts, replies, strict=True)
        ]
        data = SuccessorRows(
            make_token_shard(rows, labels=counts, ids=[""] * len(rows)), padding=self._tokenizer.padding
        )
        return -score_tokens(self._model, data.lengths, partial(data.batch, seed=None))[:, 0] / counts

    def measure_trust(self, seed: int) -> dict[str, float]:
        """How often people's own reply is preferred to one that is known to be worse; a tie is half.

        Returns:
            against_other: another conversation's reply; against_shuffled: its own words in another order;
            against_repeated: one of its words, again and again; against_empty: nothing. A kind is left out
            where no reply can be made worse so.
        """
        true, found = self.score(self._wanted), {}
        for name, others in _make_worse(self._wanted, seed).items():
            pairs = [
                _prefer(own, other)
                for own, other, reply, bad in zip(true, self.score(others), self._wanted, others, strict=True)
                if reply != bad
            ]
            if pairs:
                found[name] = float(np.mean(pairs))
        return found


def _common_ending(texts: Sequence[str]) -> str:
    shortest = min(texts, key=len)
    same = 0
    while same < len(shortest) and all(text[-same - 1] == shortest[-same - 1] for text in texts):
        same += 1
    return shortest[len(shortest) - same :]


def repetition(reply: str) -> float:
    """Share of a reply's words that occurred in it before, whatever their case."""
    words = reply.casefold().split()
    return 1 - len(set(words)) / len(words) if words else 0.0


def _make_worse(replies: Sequence[str], seed: int) -> dict[str, list[str]]:
    """Replies that are known to be worse, one in place of each."""
    chosen = random.Random(derive_seed(seed, "judge"))
    words = [reply.split() or ["yes"] for reply in replies]
    return {
        "against_other": [*replies[1:], *replies[:1]],
        "against_shuffled": [" ".join(chosen.sample(own, len(own))) for own in words],
        "against_repeated": [
            " ".join([chosen.choice(own)] * max(_FEWEST_REPEATED, len(own))) for own in words
        ],
        "against_empty": [""] * len(replies),
    }


def compare_replies(
    own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], section: EvaluateSection
) -> dict[str, float] | None:
    """How often the judge prefers one model's replies to another's; None where they have none in common.

    Args:
        own, other: rows with `id`, `reply` and the judge's `score`.

    Returns:
        win_rate: share of conversations in which `own` has the better reply, a tie being half; low, high: its
        interval, by a bootstrap over conversations; ties; conversations.
    """
    found = {row["id"]: row for row in other}
    pairs = [(row, found[row["id"]]) for row in own if row["id"] in found]
    if not pairs:
        return None
    wins = np.array(
        [0.5 if one["reply"] == two["reply"] else _prefer(one["score"], two["score"]) for one, two in pairs]
    )
    generator = np.random.default_rng(derive_seed(section.seed, "judge"))
    drawn = generator.integers(0, len(wins), (section.bootstrap_samples, len(wins)))
    edge = (1 - section.confidence) / 2
    low, high = np.quantile(wins[drawn].mean(1), [edge, 1 - edge])
    return {
        "win_rate": float(wins.mean()),
        "low": float(low),
        "high": float(high),
        "ties": float((wins == 0.5).mean()),
        "conversations": len(wins),
    }


def _prefer(own: float, other: float) -> float:
    """1 for the first, 0 for the second, a half for a tie."""
    if abs(own - other) < TIE:
        return 0.5
    return float(own > other)
