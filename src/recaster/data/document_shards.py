"""Documents as rows of tokens for language modelling.

causal   [12, 90, 7, 2]          a document and the token that ends it, cut where a row is full; all but the
                                 last are marked (`~number`): what follows is learned
masked   [101, 12, 90, 7, 102]   cut likewise, the special tokens around each row; which are hidden is decided
                                 when a batch is made
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_json
from recaster.core.hashing import hash_file
from recaster.data.marked_rows import GapRows, SuccessorRows, count_gaps
from recaster.data.token_shards import read_token_shard, write_token_shard
from recaster.data.tokenizers import Tokenizer, measure_unknown, open_tokenizer

if TYPE_CHECKING:
    from recaster.data.packed import PackedRecord
    from recaster.recipe.data import CorpusShape

SPLITS = "splits.json"
_Row = tuple[str, int, list[int]]
"""Id, number of its document (of packed rows its own), tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentTokenizer:
    """A model's tokenizer, and the special tokens that rows of documents need."""

    inner: Tokenizer
    before: list[int]
    """Of every row."""
    after: list[int]
    """Of every row."""
    end: int
    """Follows a document, or divides two."""
    mask: int | None

    @property
    def special(self) -> list[int]:
        """Tokens that are never hidden."""
        return sorted({*self.before, *self.after, self.end, self.inner.padding})


def open_document_tokenizer(folder: Path, *, masked: bool) -> DocumentTokenizer:
    """The tokenizer of a model's folder.

    Raises:
        RecipeError: it has no token that ends a text, or none to mask others with.
    """
    inner = open_tokenizer(folder)
    frame = inner.encode("")
    before, after = (frame[: (len(frame) + 1) // 2], frame[(len(frame) + 1) // 2 :]) if frame else ([], [])
    named = {key: inner.named(key) for key in ("mask_token", "sep_token", "eos_token")}
    mask = named["mask_token"]
    if masked and mask is None:
        raise _lacks(folder, "mask_token", "use a base for masked language modelling, or objective causal")
    end = next((one for one in (named["eos_token"], named["sep_token"], *after) if one is not None), None)
    if masked and after:
        end = after[-1]
    if end is None:
        raise _lacks(folder, "eos_token", "add eos_token to its tokenizer_config.json")
    return DocumentTokenizer(inner=inner, before=before, after=after if masked else [], end=end, mask=mask)


def write_document_shard(
    folder: Path,
    name: str,
    records: Sequence[PackedRecord],
    *,
    tokenizer: DocumentTokenizer,
    shape: CorpusShape,
) -> dict[str, Any]:
    """Write one split, the held-out ones in order of length, so that evaluating them fills up little.

    Returns:
        Counts for people and later steps.
    """
    rows: list[_Row] = []
    documents = [(record.id, tokenizer.inner.encode_plain(record.text)) for record in records]
    plain = [token for _, tokens in documents for token in tokens]
    unknown = measure_unknown(plain, tokenizer.inner.named("unk_token"), split=name)
    pieces = _pack(documents, tokenizer, shape) if shape.packed else _cut(documents, tokenizer, shape)
    learned = []
    nothing = 0
    for row_id, document, tokens in pieces:
        count = _count_learned(tokens, tokenizer, shape)
        if count < 1:
            nothing += 1
            continue
        marked = tokens if shape.objective == "masked" else [*(~one for one in tokens[:-1]), tokens[-1]]
        rows.append((row_id, document, marked))
        learned.append(count)
    order = np.arange(len(rows))
    if name != "train":
        order = np.argsort([len(tokens) for _, _, tokens in rows], kind="stable")
    write_token_shard(
        folder,
        name,
        rows=[rows[row][2] for row in order.tolist()],
        labels=np.array(learned, dtype=np.int64)[order],
        ids=[rows[row][0] for row in order.tolist()],
    )
    np.save(folder / _documents(name), np.array([row[1] for row in rows], dtype=np.int64)[order])
    return {
        "documents": len(records),
        "rows": len(rows),
        "tokens": sum(len(tokens) for _, _, tokens in rows),
        "learned_tokens": int(sum(learned)),
        "bytes": sum(len(record.text.encode()) for record in records),
        "nothing_learned": nothing,
        "unknown": unknown,
    }


def _count_learned(tokens: list[int], tokenizer: DocumentTokenizer, shape: CorpusShape) -> int:
    if shape.objective == "masked":
        return count_gaps(tokens, tokenizer.special, shape.masked_fraction)
    return len(tokens) - 1


def _cut(
    documents: Iterable[tuple[str, list[int]]], tokenizer: DocumentTokenizer, shape: CorpusShape
) -> Iterator[_Row]:
    """Each document on rows of its own."""
    room = _room(tokenizer, shape)
    for place, (document, tokens) in enumerate(documents):
        whole = tokens if shape.objective == "masked" else [*tokens, tokenizer.end]
        for number, start in enumerate(range(0, len(whole), room)):
            row = [*tokenizer.before, *whole[start : start + room], *tokenizer.after]
            yield (document if number == 0 else f"{document}#{number + 1}"), place, row


def _pack(
    documents: Iterable[tuple[str, list[int]]], tokenizer: DocumentTokenizer, shape: CorpusShape
) -> Iterator[_Row]:
    """Documents one after another, on full rows; a row is named after the document that it begins in."""
    room = _room(tokenizer, shape)
    held: list[int] = []
    begun, count = "", 0
    for document, tokens in documents:
        begun = begun if held else document
        held += [*tokens, tokenizer.end]
        while len(held) >= room:
            yield f"{begun}@{count}", count, [*tokenizer.before, *held[:room], *tokenizer.after]
            held, begun, count = held[room:], document, count + 1
    if held:
        yield f"{begun}@{count}", count, [*tokenizer.before, *held, *tokenizer.after]


def _room(tokenizer: DocumentTokenizer, shape: CorpusShape) -> int:
    return shape.max_tokens - len(tokenizer.before) - len(tokenizer.after)


def write_about(
    folder: Path, tokenizer: DocumentTokenizer, file: Path, shape: CorpusShape, facts: dict[str, Any]
) -> None:
    """Write what later steps must know of the prepared data beside `facts`."""
    about = {
        "objective": shape.objective,
        "padding": tokenizer.inner.padding,
        "vocabulary": tokenizer.inner.size,
        "end": tokenizer.end,
        "apart": shape.apart,
        "mask": tokenizer.mask,
        "special": tokenizer.special,
        "tokenizer": hash_file(file / "tokenizer.json"),
    }
    write_json(folder / SPLITS, {**facts, **about})


def open_document_rows(prepared: Path, split: str) -> SuccessorRows | GapRows:
    """One split as training and evaluation read it."""
    about, shard = read_json(prepared / SPLITS), read_token_shard(prepared, split)
    if about["objective"] == "causal":
        return SuccessorRows(shard, padding=about["padding"])
    return GapRows(
        shard,
        padding=about["padding"],
        mask=about["mask"],
        special=about["special"],
        vocabulary=about["vocabulary"],
    )


def sum_by_document(
    prepared: Path, split: str, found: NDArray[np.float64], learned: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What was `found` of each row `(rows, 2)`, and how many tokens it learned `(rows,)`, for each document.

    Rows of one document are no samples of their own: an interval from them would be too narrow. Documents
    stand where their first row did.
    """
    numbers = np.load(prepared / _documents(split))
    _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    place = first.argsort().argsort()[place]
    sums, counts = np.zeros((len(first), found.shape[1])), np.zeros(len(first), dtype=np.int64)
    np.add.at(sums, place, found)
    np.add.at(counts, place, learned)
    return sums, counts


def _documents(split: str) -> str:
    return f"{split}.documents.npy"


def check_tokens(prepared: Path, model: Path) -> None:
    """Refuse to measure a model whose tokens are others than those of the prepared data.

    Raises:
        RecipeError: its tokenizer is another one, so that a token of it is another piece of text.
    """
    if hash_file(model / "tokenizer.json") != read_json(prepared / SPLITS)["tokenizer"]:
        raise RecipeError(
            "This model has another tokenizer than the prepared data: perplexities do not compare.",
            where=str(model),
            value="tokenizer.json differs",
            repair="begin with the champion (model.base: models:/NAME@champion), or give the recipe "
            "another name",
        )


def plain_tokens(tokens: NDArray[np.int32]) -> list[int]:
    """A row's tokens without marks."""
    return [int(value) for value in np.where(tokens < 0, ~tokens, tokens)]


def _lacks(folder: Path, key: str, repair: str) -> RecipeError:
    return RecipeError(
        f"The tokenizer names no {key}.",
        where="model.base",
        value=str(folder / "tokenizer_config.json"),
        repair=repair,
    )
