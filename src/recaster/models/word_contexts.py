"""Word vectors in training: words foretell their neighbours (skip-gram), or neighbours a word (CBOW).

R = rows, W = words of a row, K = random words that a row's words share, D = width of a vector

    the pump ~the valve is open     `~` marks the begin of a document: neighbours are on one side of it
    scores  (R, W, W) of a row's words with each other, of which neighbours count; (R, W, K) with random words

All is matrix products: words share their row's random words, each weighed for many. Source: Mikolov et al.,
"Distributed representations of words and phrases and their compositionality", 2013; shared random words as
Ji et al., "Parallelizing word2vec in shared and distributed memory", 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.word_table import hash_piece, list_pieces

FILLER = -(2**31)
"""Stands behind the words of a row."""
NATS, HITS = 0, 1
"""Columns of what the model returns."""


class WordContexts(nn.Module):
    """Two tables: words as themselves, and as neighbours (of CBOW: as what is foretold)."""

    def __init__(
        self,
        *,
        width: int,
        counts: Tensor,
        contexts: Mapping[str, Any],
        cbow: bool,
        sparse: bool,
        pieces: tuple[Tensor, Tensor, int] | None,
    ) -> None:
        super().__init__()
        self.cbow = cbow
        self.window, self.shared = contexts["window"], contexts["shared_negatives"]
        self.weight = contexts["negatives"] / self.shared
        self.inputs = _build_inputs(len(counts), width, pieces, sparse=sparse)
        self.outputs = nn.Embedding(len(counts), width, sparse=sparse)
        nn.init.zeros_(self.outputs.weight)
        shares = counts.double() ** contexts["flattening"]
        self.register_buffer("cumulated", (shares / shares.sum()).cumsum(0), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """For words `(R, W)`, of each row: nats of its neighbours and random words, neighbours hit; `(R, 2)`.

        A word counts as hit by the share of its neighbours that it scores above most random words. Hits are
        counted when evaluated alone; windows are whole then and the random words evenly spaced ones, so that
        the same rows give the same numbers.
        """
        real = rows != FILLER
        begins = real & (rows < 0)
        words = torch.where(begins, ~rows, rows) * real
        documents = begins.cumsum(1)
        foretold, random = self._look_up(self.outputs, words, self._draw(rows))
        if self.cbow:
            return self._score_means(words, foretold, random, self._list_neighbours(real, documents))
        near = self._find_neighbours(real, documents)
        (vectors,) = self._look_up(self.inputs, words)
        scores = foretold @ vectors.transpose(1, 2)  # of a word (second index) with what is near it (last)
        against = vectors @ random.transpose(1, 2)
        weights = near.sum(1) * self.weight
        nats = (F.softplus(-scores) * near).sum((1, 2)) + (F.softplus(against).sum(2) * weights).sum(1)
        if self.training:
            return torch.stack([nats, torch.zeros_like(nats)], 1)
        above = ((scores > against.median(2).values[:, None]) & near).sum(1)
        return torch.stack([nats, (above / near.sum(1).clamp(min=1)).sum(1)], 1)

    def _score_means(
        self, words: Tensor, foretold: Tensor, random: Tensor, near: tuple[Tensor, Tensor]
    ) -> Tensor:
        neighbours, at = near
        found, places = torch.unique(words, return_inverse=True)
        counts = neighbours.sum(2)
        members = places[:, at][neighbours]
        means: Tensor = _BagMeans.apply(self.inputs(found), members, counts.flatten()).view_as(foretold)  # type: ignore[no-untyped-call]
        scores, against, some = (means * foretold).sum(2), means @ random.transpose(1, 2), counts > 0
        nats = (F.softplus(-scores) + F.softplus(against).sum(2) * self.weight) * some
        if self.training:
            return torch.stack([nats.sum(1), torch.zeros_like(nats[:, 0])], 1)
        hits = (scores > against.median(2).values) & some
        return torch.stack([nats.sum(1), hits.sum(1).to(nats.dtype)], 1)

    def _find_neighbours(self, real: Tensor, documents: Tensor) -> Tensor:
        """Whether each two words of a row are neighbours, `(R, W, W)`, within the first one's own window."""
        width = real.shape[1]
        # Of 16 bits, which a processor compares four times as many of at once.
        places = torch.arange(width, device=real.device, dtype=torch.int16)
        apart = (places[:, None] - places).abs()
        windows = self._draw_windows(real)
        # Fillers are of a document of their own, which differs from all others and from each other.
        documents = torch.where(real, documents.to(torch.int16), -1 - places)
        return (apart <= windows) & (apart > 0) & (documents[:, :, None] == documents[:, None, :])

    def _list_neighbours(self, real: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the 2N places within the largest window, `(R, W, 2N)`, and which: `(W, 2N)`."""
        width = real.shape[1]
        apart = torch.arange(-self.window, self.window + 1, device=real.device, dtype=torch.int16)
        apart = apart[apart != 0]
        at = torch.arange(width, device=real.device)[:, None] + apart
        within, at = (at >= 0) & (at < width), at.clamp(0, width - 1)
        same = (documents[:, at] == documents[..., None]) & real[:, at] & real[..., None]
        return same & within & (apart.abs() <= self._draw_windows(real)), at

    def _draw_windows(self, real: Tensor) -> Tensor:
        """How far each word's neighbours are at most, `(R, W, 1)`."""
        shape, kind = (*real.shape, 1), {"device": real.device, "dtype": torch.int16}
        if self.training:
            return torch.randint(1, self.window + 1, shape, **kind)  # type: ignore[call-overload,no-any-return]
        return torch.full(shape, self.window, **kind)  # type: ignore[call-overload,no-any-return]

    def _draw(self, rows: Tensor) -> Tensor:
        """Random words `(R, K)`, by their flattened counts."""
        shape = (len(rows), self.shared)
        cumulated: Tensor = self.cumulated  # type: ignore[assignment] # a buffer
        if self.training:
            at = torch.rand(shape, dtype=cumulated.dtype, device=rows.device)
        else:
            spaced = torch.arange(self.shared, dtype=cumulated.dtype, device=rows.device)
            at = ((spaced + 0.5) / self.shared).expand(shape)
        return torch.searchsorted(cumulated, at.contiguous()).clamp(max=len(cumulated) - 1)

    def _look_up(self, table: nn.Module, *words: Tensor) -> list[Tensor]:
        """Vectors `(R, …, D)` of each of `words` `(R, …)`: a word's is read, and later changed, once."""
        found, places = torch.unique(torch.cat(words, 1), return_inverse=True)
        vectors = table(found)
        return [F.embedding(own, vectors) for own in places.split([one.shape[1] for one in words], 1)]


class _BagMeans(torch.autograd.Function):
    """Means `(B, D)` of bags of vectors `(N, D)`: `members` `(M,)`, bag after bag, `counts` `(B,)` in each.

    An empty bag's mean is zeros. torch's own backward of `embedding_bag` takes three times as long on a CPU:
    a vector's gradient is here a bag of means'.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, members: Tensor, counts: Tensor) -> Tensor:
        ctx.save_for_backward(members, counts)
        ctx.vectors = len(vectors)
        return F.embedding_bag(members, vectors, counts.cumsum(0) - counts, mode="mean")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        members, counts = ctx.saved_tensors
        bags = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        uses = torch.bincount(members, minlength=ctx.vectors)
        shares = gradient / counts.clamp(min=1)[:, None]
        order = members.argsort()
        return F.embedding_bag(bags[order], shares, uses.cumsum(0) - uses, mode="sum"), None, None


class _Pieced(nn.Module):
    """A word's vector is the mean of its own and of its pieces' (fastText)."""

    def __init__(self, words: int, width: int, pieces: tuple[Tensor, Tensor, int], *, sparse: bool) -> None:
        super().__init__()
        flat, offsets, buckets = pieces
        self.words = words
        self.table = nn.EmbeddingBag(words + buckets, width, mode="mean", sparse=sparse)
        self.register_buffer("flat", flat, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, found: Tensor) -> Tensor:
        """Vectors `(words, D)` of word numbers `(words,)`."""
        flat: Tensor = self.flat  # type: ignore[assignment] # buffers
        offsets: Tensor = self.offsets  # type: ignore[assignment]
        begins, counts = offsets[found], offsets[found + 1] - offsets[found]
        starts = counts.cumsum(0) - counts
        places = torch.arange(int(counts.sum()), device=found.device)
        picked = flat[places + (begins - starts).repeat_interleave(counts)]
        vectors: Tensor = self.table(picked, starts)
        return vectors


def _build_inputs(
    words: int, width: int, pieces: tuple[Tensor, Tensor, int] | None, *, sparse: bool
) -> nn.Module:
    table = (
        _Pieced(words, width, pieces, sparse=sparse) if pieces else nn.Embedding(words, width, sparse=sparse)
    )
    for weight in table.parameters():
        nn.init.uniform_(weight, -0.5 / width, 0.5 / width)
    return table


def number_pieces(words: list[str], subwords: Mapping[str, int]) -> tuple[Tensor, Tensor, int]:
    """For each word its own number and those of its pieces, one after the other, and where each word begins.

    Returns:
        Numbers `(all,)`, offsets `(words + 1,)`, buckets. A piece's number is its bucket after all words.
    """
    size = {name: subwords[name] for name in ("shortest", "longest")}
    buckets = subwords["buckets"]
    known: dict[str, int] = {}
    flat: list[int] = []
    offsets = [0]
    for number, word in enumerate(words):
        flat.append(number)
        for piece in list_pieces(word, **size):
            if piece not in known:
                known[piece] = len(words) + hash_piece(piece, buckets)
            flat.append(known[piece])
        offsets.append(len(flat))
    return torch.from_numpy(np.array(flat)), torch.from_numpy(np.array(offsets)), buckets


@torch.no_grad()
def to_table_state(model: WordContexts) -> dict[str, Tensor]:
    """The state dict of `word_table.WordTable` from the trained `model`: vectors as they are used."""
    if isinstance(model.inputs, _Pieced):
        words = model.inputs.words
        return {
            "vectors.weight": model.inputs(torch.arange(words)),
            "pieces.weight": model.inputs.table.weight[words:].clone(),
        }
    (weight,) = model.inputs.parameters()
    return {"vectors.weight": weight.detach().clone()}


def sum_nats(outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001 - the targets are in the rows
    """Nats of all rows, shape `()`."""
    return outputs[:, NATS].sum()


def sum_hits(outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    """Words hit, shape `()`."""
    return outputs[:, HITS].sum()
