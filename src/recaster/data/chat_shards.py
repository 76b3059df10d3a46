r"""Prepared conversations: shards of marked tokens, and of the held-out ones also their text.

train.tokens.npy     [1, 90, …, ~13, ~77, …, 2]     `~number`: the token after this one is learned
train.labels.npy     learned tokens of each row
test.texts.json      [["<|im_start|>user\n…", [[38, 66]]], …]     the text, and where replies stand in it

Token numbers are one tokenizer's own. A model with another one reads the text, so that models whose
tokenizers were trained on other data are still measured on the same replies.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_bytes, write_json
from recaster.core.hashing import hash_file, hash_value
from recaster.data.chat_sources import parse_messages
from recaster.data.token_shards import TokenShard, make_token_shard, read_token_shard, write_token_shard

if TYPE_CHECKING:
    from recaster.data.chat_tokens import ChatTokenizer, EncodedChat
    from recaster.data.packed import PackedRecord

SPLITS = "splits.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """One held-out split as a model's own tokenizer reads it."""

    shard: TokenShard
    counts: NDArray[np.int64]
    """`(rows,)` learned tokens by the tokenizer that prepared them: the same for every model."""
    padding: int
    stop: list[int]
    """Tokens that end a reply."""


def write_chat_shard(
    folder: Path,
    name: str,
    records: Sequence[PackedRecord],
    *,
    tokenizer: ChatTokenizer,
    longest: int,
    divider: int | None = None,
) -> dict[str, Any]:
    """Write one split, the held-out ones in order of length, so that evaluating them fills up little.

    Args:
        longest: tokens of a row; what is longer is cut there.
        divider: the token between conversations that share a row of the training split; None: none do.

    Returns:
        Counts for people and later steps.
    """
    chats = [tokenizer.encode(parse_messages(record.text), longest) for record in records]
    kept = [place for place, chat in enumerate(chats) if any(chat.learned[1:])]
    if name != "train":
        kept.sort(key=lambda place: len(chats[place].tokens))
    own, ids = [chats[place] for place in kept], [records[place].id for place in kept]
    if divider is not None and name == "train":
        own, ids = pack_chats(own, ids, longest=longest, divider=divider)
    counts = write_encoded(folder, name, own, ids, texts=name != "train")
    return {
        "conversations": len(kept),
        **counts,
        "truncated": float(np.mean([chat.truncated for chat in chats])) if chats else 0.0,
        "nothing_learned": len(chats) - len(kept),
    }


def pack_chats(
    chats: Sequence[EncodedChat], ids: Sequence[str], *, longest: int, divider: int
) -> tuple[list[EncodedChat], list[str]]:
    """Rows of at most `longest` tokens with whole conversations: the longest that still has room, first.

    Each is named by its conversations. (Best fit decreasing, Johnson 1973.)
    """
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # room that is left in a row, and its number, ascending
    for place in sorted(range(len(chats)), key=lambda place: (-len(chats[place].tokens), place)):
        needed = len(chats[place].tokens) + 1
        found = bisect_left(rooms, (needed, -1))
        if found < len(rooms):
            room, row = rooms.pop(found)
            rows[row].append(place)
        else:
            room, row = longest + 1, len(rows)
            rows.append([place])
        insort(rooms, (room - needed, row))
    return [_join([chats[place] for place in row], divider) for row in rows], [
        "+".join(ids[place] for place in row) for row in rows
    ]


def _join(chats: Sequence[EncodedChat], divider: int) -> EncodedChat:
    tokens, learned = list(chats[0].tokens), list(chats[0].learned)
    for chat in chats[1:]:
        tokens += [divider, *chat.tokens]
        learned += [False, *chat.learned]
    truncated = any(chat.truncated for chat in chats)
    return replace(chats[0], tokens=tokens, learned=learned, truncated=truncated, text="", parts=[])


def write_encoded(
    folder: Path, name: str, chats: Sequence[EncodedChat], ids: list[str], *, texts: bool
) -> dict[str, int]:
    """Write a shard; return its counts of rows and tokens.

    Args:
        texts: write these too, for models with other tokenizers.
    """
    if texts:
        told = [[chat.text, chat.parts] for chat in chats]
        write_bytes(folder / f"{name}.texts.json", json.dumps(told).encode())
    learned = np.array([sum(chat.learned[1:]) for chat in chats], dtype=np.int64)
    rows = [_mark_predecessors(chat.tokens, chat.learned) for chat in chats]
    write_token_shard(folder, name, rows=rows, labels=learned, ids=ids)
    return {
        "rows": len(rows),
        "tokens": sum(len(row) for row in rows),
        "learned_tokens": int(learned.sum()),
    }


def write_about(
    folder: Path, tokenizer: ChatTokenizer, facts: dict[str, Any], *, divider: int | None = None
) -> None:
    """Write what later steps must know of the prepared data beside `facts`.

    Args:
        divider: the token between conversations that share a row, where some do.
    """
    about = {
        "divider": divider,
        "padding": tokenizer.padding,
        "vocabulary": tokenizer.size,
        "stop": tokenizer.closing_tokens(),
        "tokenizer": hash_file(tokenizer.file),
        "template": hash_value(tokenizer.template),
    }
    write_json(folder / SPLITS, {**facts, **about})


def read_held_out(prepared: Path, split: str, model: Path) -> HeldOut:
    """A held-out split for the model in the folder `model`.

    Raises:
        RecipeError: it has another chat template, so that its text is another.
    """
    about, shard = read_json(prepared / SPLITS), read_token_shard(prepared, split)
    counts = shard.labels
    if hash_file(model / "tokenizer.json") == about["tokenizer"]:
        return HeldOut(shard=shard, counts=counts, padding=about["padding"], stop=about["stop"])
    from recaster.data.chat_tokens import ChatTokenizer

    own = ChatTokenizer(model)
    if hash_value(own.template) != about["template"]:
        raise RecipeError(
            "This model has another chat template than the prepared data.",
            where=str(model),
            value="what it would be measured on is another text",
            repair="give a model from another base another name",
        )
    rows, learned = [], []
    for text, parts in read_json(prepared / f"{split}.texts.json"):
        tokens, marks = own.mark(text, parts)
        rows.append(_mark_predecessors(tokens, marks))
        learned.append(sum(marks[1:]))
    read = make_token_shard(rows, labels=np.array(learned, dtype=np.int64), ids=shard.ids)
    return HeldOut(shard=read, counts=counts, padding=own.padding, stop=own.closing_tokens())


def last_reply(shard: TokenShard, row: int) -> tuple[list[int], list[int]]:
    """A conversation's tokens up to its last reply, and that reply's."""
    marked = np.array(shard.tokens[shard.offsets[row] : shard.offsets[row + 1]])
    plain = np.where(marked < 0, ~marked, marked).tolist()
    marks = np.flatnonzero(marked < 0)
    gaps = np.flatnonzero(np.diff(marks) > 1)
    first = int(marks[gaps[-1] + 1] if len(gaps) else marks[0])
    return plain[: first + 1], plain[first + 1 : int(marks[-1]) + 2]


def _mark_predecessors(tokens: Sequence[int], learned: Sequence[bool]) -> list[int]:
    """The tokens, each marked (`~number`) whose successor is learned."""
    following = [*learned[1:], False]
    return [~token if own else token for token, own in zip(tokens, following, strict=True)]
