"""Prepared texts with their translations: shards of both sides' tokens, of held-out ones also the text.

train.tokens.npy     [3, 90, 41, 2, ~4, ~17, ~33, 2]    the source; what the decoder is given, marked; the end
train.labels.npy     learned tokens of each row
train.sides.npy      (rows, 2) tokens of the source, and marks
test.texts.json      [["en-de", "two dogs run", "zwei Hunde rennen"], …]

Token numbers are one tokenizer's own. A model with another one reads the text, so that models whose
vocabularies were trained on other data are still measured on the same translations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.files import read_json, write_bytes, write_json
from recaster.core.hashing import hash_file
from recaster.data.marked_rows import SuccessorRows
from recaster.data.pair_sources import parse_sides
from recaster.data.token_shards import TokenShard, make_token_shard, read_token_shard, write_token_shard
from recaster.data.tokenizers import measure_unknown

if TYPE_CHECKING:
    from recaster.data.packed import PackedRecord
    from recaster.data.pair_tokens import PairTokenizer
    from recaster.recipe.pairs import PairShape

SPLITS = "splits.json"
_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An example."""

    id: str
    direction: str
    source: str
    target: str


class PairRows(SuccessorRows):
    """One split as training reads it; batches are made by the lengths of both sides."""

    def __init__(self, shard: TokenShard, sides: NDArray[np.int64], *, padding: int) -> None:
        super().__init__(shard, padding=padding)
        self.lengths = sides


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """One held-out split as a model's own tokenizer reads it."""

    rows: PairRows
    counts: NDArray[np.int64]
    """`(rows,)` learned tokens by the tokenizer that prepared them: the same for every model."""
    pairs: list[Pair]


def expand_pairs(records: Sequence[PackedRecord], directions: Sequence[str]) -> list[Pair]:
    """An example for each direction that a record has both sides of."""
    found = []
    for record in records:
        sides = parse_sides(record.text)
        for direction in directions:
            source, _, target = direction.partition("-")
            if source in sides and target in sides:
                name = f"{record.id}/{direction}" if len(directions) > 1 else record.id
                found.append(Pair(id=name, direction=direction, source=sides[source], target=sides[target]))
    return found


def group_pairs(texts: Sequence[str]) -> NDArray[np.int64]:
    """Number the groups of records that share a side but for case, punctuation and spaces.

    Args:
        texts: of records: their texts by language.

    Returns:
        `(rows,)` group numbers; a group is named by its first row.
    """
    first: dict[tuple[str, str], int] = {}
    parent = list(range(len(texts)))
    for row, text in enumerate(texts):
        for language, side in parse_sides(text).items():
            key = (language, _NOT_WORD.sub(" ", side.casefold()).strip() or side)
            one, other = sorted((_root(parent, first.setdefault(key, row)), _root(parent, row)))
            parent[other] = one
    return np.array([_root(parent, row) for row in range(len(texts))], dtype=np.int64)


def _root(parent: list[int], row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


def write_pair_shard(
    folder: Path, name: str, pairs: Sequence[Pair], *, tokenizer: PairTokenizer, shape: PairShape
) -> dict[str, Any]:
    """Write one split, the held-out ones in order of length, so that evaluating them fills up little.

    Returns:
        Counts for people and later steps.

    Raises:
        DataError: the tokenizer knows next to nothing of the texts.
    """
    encoded, too_long = [], 0
    for pair in pairs:
        one, other, cut = _encode(pair, tokenizer, shape.max_tokens)
        too_long += cut
        if name != "train" or not cut:
            encoded.append((pair, one, other))
    if name != "train":
        encoded.sort(key=lambda found: (len(found[1]), len(found[2])))
        texts = [[pair.direction, pair.source, pair.target] for pair, _, _ in encoded]
        write_bytes(folder / f"{name}.texts.json", json.dumps(texts).encode())
    rows, sides = _lay_out([(one, other) for _, one, other in encoded])
    learned = sides[:, 1].copy()
    write_token_shard(folder, name, rows=rows, labels=learned, ids=[pair.id for pair, _, _ in encoded])
    np.save(folder / f"{name}.sides.npy", sides)
    return {
        "rows": len(rows),
        "source_tokens": int(sides[:, 0].sum()),
        "learned_tokens": int(learned.sum()),
        "truncated": too_long / max(1, len(pairs)),
        "unknown": _count_unknown(name, encoded, tokenizer),
    }


def _encode(pair: Pair, tokenizer: PairTokenizer, longest: int) -> tuple[list[int], list[int], bool]:
    """Both sides, and whether either was too long and is cut."""
    room = longest + 1  # one more, to see whether something was cut
    source = tokenizer.source(pair.source, pair.direction, longest=room)
    target = tokenizer.target(pair.target, pair.direction, longest=room)
    cut = max(len(source), len(target)) > longest
    if cut:
        source = tokenizer.source(pair.source, pair.direction, longest=longest)
        target = tokenizer.target(pair.target, pair.direction, longest=longest)
    return source, target, cut


def _lay_out(pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[list[list[int]], NDArray[np.int64]]:
    """Rows that hold both sides, and the sides' lengths `(rows, 2)`."""
    rows = [[*source, *(~token for token in target[:-1]), target[-1]] for source, target in pairs]
    lengths = [(len(source), len(target) - 1) for source, target in pairs]
    return rows, np.array(lengths, dtype=np.int64).reshape(len(rows), 2)


def _count_unknown(
    name: str, encoded: Sequence[tuple[Pair, list[int], list[int]]], tokenizer: PairTokenizer
) -> float:
    """Share of unknown tokens, what begins and ends a side left out."""
    inner = [token for _, *sides in encoded for side in sides for token in side[1:-1]]
    return measure_unknown(inner, tokenizer.unknown, split=name)


def write_about(folder: Path, tokenizer: PairTokenizer, file: Path, facts: dict[str, Any]) -> None:
    """Write what later steps must know of the prepared data beside `facts`."""
    about = {
        "padding": tokenizer.inner.padding,
        "vocabulary": tokenizer.inner.size,
        "end": tokenizer.end,
        "tokenizer": hash_file(file / "tokenizer.json"),
    }
    write_json(folder / SPLITS, {**facts, **about})


def open_pair_rows(prepared: Path, split: str) -> PairRows:
    """One split as training reads it."""
    padding = read_json(prepared / SPLITS)["padding"]
    sides = np.load(prepared / f"{split}.sides.npy")
    return PairRows(read_token_shard(prepared, split), sides, padding=padding)


def read_pair_texts(prepared: Path, split: str) -> list[Pair]:
    """The texts of a held-out split, in the order of its rows."""
    names = read_json(prepared / f"{split}.ids.json")
    texts = read_json(prepared / f"{split}.texts.json")
    return [
        Pair(id=name, direction=direction, source=source, target=target)
        for name, (direction, source, target) in zip(names, texts, strict=True)
    ]


def read_held_out(prepared: Path, split: str, tokenizer: PairTokenizer, model: Path) -> HeldOut:
    """A held-out split for the model in the folder `model`, whose `tokenizer` it is."""
    about, rows = read_json(prepared / SPLITS), open_pair_rows(prepared, split)
    counts, pairs = read_token_shard(prepared, split).labels, read_pair_texts(prepared, split)
    if hash_file(model / "tokenizer.json") == about["tokenizer"]:
        return HeldOut(rows=rows, counts=counts, pairs=pairs)
    longest = int(about["max_tokens"])
    encoded = [_encode(pair, tokenizer, longest)[:2] for pair in pairs]
    tokens, sides = _lay_out(encoded)
    shard = make_token_shard(tokens, labels=sides[:, 1].copy(), ids=[pair.id for pair in pairs])
    return HeldOut(rows=PairRows(shard, sides, padding=tokenizer.inner.padding), counts=counts, pairs=pairs)
