"""Held-out records that training sees too: the same content in two splits of prepared shards.

SPLIT.images.npy (rows, …) + SPLIT.range.json near: root mean square difference under a distance
SPLIT.tokens.npy + SPLIT.offsets.npy          near: nine of ten tokens of the two are in both

Reads the shards of any workload by these names, so that it sees what training sees. Words that a
tokenizer trained on this data does not know are taken to differ: "What is ? ?" may ask for anything.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.files import read_json
from recaster.data.tokenizers import find_unknown

_SPLITS = ("train", "validation", "test")
_PAIRS = tuple(combinations(_SPLITS, 2))
_NO_CONTENT = {"labels", "offsets", "reference"}
_OPERATIONS = 4e10
"""Multiplications in one comparison of two splits of pictures: about two seconds on two cores."""
_BLOCK_ROWS = 512
_HASHES, _BAND, _CANDIDATES = 64, 8, 20
"""Of MinHash (Broder 1997): a row is compared with those that share most bands with it; at a similarity of
0.9, 99 of 100 share one."""
_MOST_TEXTS = 5000
_PRIME = 2**31 - 1
_SIMILAR = 0.9
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """What two splits have in common."""

    splits: tuple[str, str]
    exact: int
    """Rows of the second split whose content is in the first."""
    near: int
    """Rows of the second split, of the `looked_at`, with a near copy in the first; exact copies left out."""
    looked_at: int
    """Rows of the second split that were searched for near copies; a sample of large splits."""
    examples: list[tuple[str, str]]
    """Ids of a few such rows, the first split's first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    ids: list[str]
    digests: list[bytes]
    pictures: NDArray[Any] | None
    """`(rows, features)`, memory-mapped."""
    span: float
    """Largest less smallest legal pixel value."""
    tokens: list[NDArray[np.int64]] | None
    """The different tokens of each row, ascending."""


def find_leakage(folder: Path, *, distance: float) -> list[Leakage]:
    """What each two splits of the prepared data in `folder` have in common.

    Args:
        distance: root mean square difference (fraction of the range) under which two pictures are one.
    """
    names = sorted({name for pair in _PAIRS for name in pair if (folder / f"{name}.ids.json").exists()})
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    unknown = find_unknown(tokenizer) if tokenizer.exists() else None
    splits = {name: _read_split(folder, name, unknown=unknown) for name in names}
    return [
        _compare(splits[first], splits[second], pair=(first, second), distance=distance)
        for first, second in _PAIRS
        if first in splits and second in splits
    ]


def _tell_apart(tokens: NDArray[Any], unknown: int, name: str) -> NDArray[np.int64]:
    """`tokens` with a number of its own for each unknown one, which no other split has either."""
    own = tokens.astype(np.int64)
    places = np.flatnonzero(own == unknown)
    own[places] = -2 - len(_SPLITS) * places - _SPLITS.index(name)
    return own


def _read_split(folder: Path, name: str, *, unknown: int | None) -> _Split:
    arrays = {path.name.split(".")[1]: np.load(path, mmap_mode="r") for path in folder.glob(f"{name}.*.npy")}
    if unknown is not None and "tokens" in arrays:
        arrays["tokens"] = _tell_apart(arrays["tokens"], unknown, name)
    content = {key: value for key, value in sorted(arrays.items()) if key not in _NO_CONTENT}
    ids: list[str] = read_json(folder / f"{name}.ids.json")
    offsets = arrays.get("offsets")
    digests = [hashlib.blake2b(digest_size=16) for _ in ids]
    for value in content.values():
        for digest, row in zip(digests, _rows(value, offsets), strict=True):
            digest.update(np.ascontiguousarray(row).tobytes())
    images = content.get("images")
    tokens = content.get("tokens")
    return _Split(
        ids=ids,
        digests=[digest.digest() for digest in digests],
        pictures=None if images is None else images.reshape(len(images), -1),
        span=0.0 if images is None else _read_span(folder / f"{name}.range.json"),
        tokens=None if tokens is None else [_different(row) for row in _rows(tokens, offsets)],
    )


def _different(tokens: NDArray[Any]) -> NDArray[np.int64]:
    """The different ones, ascending; a row without any has one that no other has."""
    return np.unique(tokens).astype(np.int64) if len(tokens) else np.array([-1], dtype=np.int64)


def _rows(value: NDArray[Any], offsets: NDArray[np.int64] | None) -> Iterator[NDArray[Any]]:
    if offsets is None or len(value) != offsets[-1]:
        yield from value
        return
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        yield value[start:end]


def _compare(first: _Split, second: _Split, *, pair: tuple[str, str], distance: float) -> Leakage:
    place = {digest: row for row, digest in enumerate(first.digests)}
    exact = {row: place[digest] for row, digest in enumerate(second.digests) if digest in place}
    others = np.array([row for row in range(len(second.ids)) if row not in exact], dtype=np.int64)
    near: dict[int, int] = {}
    if first.pictures is not None and second.pictures is not None:
        others = _sample(others, most=int(_OPERATIONS / max(1, first.pictures.size)))
        near = _near_pictures(first.pictures, second.pictures, others, distance=distance * first.span)
    elif first.tokens is not None and second.tokens is not None:
        others = _sample(others, most=_MOST_TEXTS)
        near = _near_tokens(first.tokens, second.tokens, others)
    else:
        others = others[:0]
    found = [*exact.items(), *near.items()]
    return Leakage(
        splits=pair,
        exact=len(exact),
        near=len(near),
        looked_at=len(others),
        examples=[(first.ids[mine], second.ids[row]) for row, mine in found[:_EXAMPLES]],
    )


def _sample(rows: NDArray[np.int64], *, most: int) -> NDArray[np.int64]:
    """`most` of `rows`, evenly spread."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, max(1, most)).astype(np.int64)]


def _near_pictures(
    first: NDArray[Any], second: NDArray[Any], rows: NDArray[np.int64], *, distance: float
) -> dict[int, int]:
    wanted = second[rows].astype(np.float32)
    own = np.einsum("ij,ij->i", wanted, wanted, dtype=np.float64)
    limit = distance**2 * first.shape[1] * (1 + 1e-6) + 1e-6
    near: dict[int, int] = {}
    for start in range(0, len(first), _BLOCK_ROWS):
        block = first[start : start + _BLOCK_ROWS].astype(np.float32)
        squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
        gaps = squares[:, None] + own[None, :] - 2.0 * (block @ wanted.T)
        for mine, place in np.argwhere(gaps <= limit).tolist():
            near.setdefault(int(rows[place]), start + mine)
    return near


def _read_span(path: Path) -> float:
    minimum, maximum = read_json(path)
    return float(maximum - minimum)


def _near_tokens(
    first: list[NDArray[np.int64]], second: list[NDArray[np.int64]], rows: NDArray[np.int64]
) -> dict[int, int]:
    known: dict[tuple[int, bytes], list[int]] = {}
    for row, bands in enumerate(_bands(first)):
        for band in enumerate(bands):
            known.setdefault(band, []).append(row)
    bands_of = _bands([second[row] for row in rows.tolist()])
    near: dict[int, int] = {}
    for row, bands in zip(rows.tolist(), bands_of, strict=True):
        shared = Counter(mine for band in enumerate(bands) for mine in known.get(band, ()))
        for mine, _ in shared.most_common(_CANDIDATES):
            if _similarity(first[mine], second[row]) >= _SIMILAR:
                near[row] = mine
                break
    return near


def _bands(rows: list[NDArray[np.int64]]) -> list[list[bytes]]:
    """MinHash signatures of the rows' tokens, cut into bands."""
    if not rows:
        return []
    flat = np.concatenate(rows)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])[:-1]]).astype(np.int64)
    chance = np.random.default_rng(0)
    signatures = []
    for factor, shift in chance.integers(1, _PRIME, (_HASHES, 2)).tolist():
        signatures.append(np.minimum.reduceat((flat * factor + shift) % _PRIME, starts).astype(np.int32))
    table = np.stack(signatures, axis=1).reshape(len(rows), -1, _BAND)
    return [[band.tobytes() for band in row] for row in table]


def _similarity(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Jaccard's: tokens in both over tokens in either."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)
