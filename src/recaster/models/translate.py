"""Translations of many sources, in batches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recaster.core.files import read_json
from recaster.models.seq2seq_models import OpenSeq2Seq, best_device
from recaster.models.seq2seq_search import cut_end, write_beams

GENERATION = "generation_config.json"
_BATCH_TOKENS = 2048
"""Of the sources that are translated together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How translations are looked for."""

    beams: int
    """Hypotheses of each source that are kept; 1 takes the likeliest token each time."""
    length_penalty: float
    """Power of the length by which a hypothesis's log probability is divided."""


def read_search(folder: Path) -> Search:
    """What a model's folder says of it; a base that says nothing takes the likeliest token each time."""
    file = folder / GENERATION
    told = read_json(file) if file.exists() else {}
    return Search(
        beams=int(told.get("num_beams") or 1), length_penalty=float(told.get("length_penalty") or 1.0)
    )


def translate(
    model: nn.Module,
    sources: Sequence[Sequence[int]],
    starts: Sequence[int],
    *,
    padding: int,
    end: int,
    search: Search,
    longest: int,
) -> list[list[int]]:
    """The tokens of each source's translation, without what ends and fills up; in the sources' order.

    Args:
        starts: what each translation begins with.
        longest: tokens of a translation.
    """
    device = best_device()
    model = model.to(device).eval()
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    found: list[list[int]] = [[] for _ in sources]
    for rows in _batches(order, sources):
        tokens = pad_sources([sources[row] for row in rows], padding).to(device)
        begun = torch.tensor([starts[row] for row in rows], device=device)
        written = _write(model, tokens, begun, padding=padding, end=end, search=search, longest=longest)
        for row, text in zip(rows, written, strict=True):
            found[row] = text
    return found


def pad_sources(sources: Sequence[Sequence[int]], padding: int) -> Tensor:
    """`(rows, longest)`."""
    longest = max(map(len, sources))
    return torch.tensor([[*source, *[padding] * (longest - len(source))] for source in sources])


def _batches(order: Sequence[int], sources: Sequence[Sequence[int]]) -> list[list[int]]:
    pieces: list[list[int]] = []
    for row in order:  # ascending: the newest is the longest
        if pieces and (len(pieces[-1]) + 1) * len(sources[row]) <= _BATCH_TOKENS:
            pieces[-1].append(row)
        else:
            pieces.append([row])
    return pieces


def _write(
    model: nn.Module,
    tokens: Tensor,
    starts: Tensor,
    *,
    padding: int,
    end: int,
    search: Search,
    longest: int,
) -> list[list[int]]:
    if not isinstance(model, OpenSeq2Seq):
        own: Any = model
        return write_beams(
            own,
            tokens,
            starts,
            beams=search.beams,
            length_penalty=search.length_penalty,
            longest=longest,
        )
    network: Any = model.network
    beams = {"length_penalty": search.length_penalty} if search.beams > 1 else {}
    written = network.generate(
        input_ids=tokens,
        attention_mask=(tokens != padding).long(),
        decoder_input_ids=starts[:, None],
        num_beams=search.beams,
        do_sample=False,
        max_new_tokens=longest,
        max_length=None,
        **beams,
    )
    return [cut_end(row, end, padding) for row in written[:, 1:].tolist()]
