"""Synthetic preferences out of chitchat: a person's own reply is better than one of another conversation.

{"id": "a7", "prompt": [{"role": "system", …}, {"role": "user", …}], "chosen": "My aunt.", "rejected": "no"}

python -m benchmarks.chitchat_pairs data/chitchat/chitchat.jsonl.gz data/chitchat-pairs/pairs.jsonl.gz

Nobody was asked which reply is better. Of some replies elsewhere the one that is nearest in length is the
worse one, so that length alone tells nothing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recaster.data.chat_sources import Message, parse_messages, read_chats
from recaster.models.turn_order import check_order

_PAIRS, _SEED, _OTHERS, _MOST_TURNS = 1000, 5, 12, 8
_SHORTEST = 12
"""Characters of a chosen reply: shorter ones would suit anywhere."""


def main() -> int:
    """Write the pairs of a file of conversations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    asked = parser.parse_args()
    count = write_pairs(asked.source, asked.target)
    sys.stdout.write(f"{count} pairs in {asked.target}\n")
    return 0


def write_pairs(source: Path, target: Path) -> int:
    """Write the pairs, gzipped without a time stamp: the same source gives the same bytes."""
    rows = list(make_pairs(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    target.write_bytes(gzip.compress(text.encode(), mtime=0))
    return len(rows)


def make_pairs(source: Path) -> Iterator[dict[str, Any]]:
    """A pair from each of a thousand conversations that has a reply to choose, always the same."""
    chosen = random.Random(_SEED)
    chats = list(_read(source))
    replies = [
        (number, message["content"])
        for number, (_, messages) in enumerate(chats)
        for message in messages
        if message["role"] == "assistant"
    ]
    for number in sorted(chosen.sample(range(len(chats)), min(_PAIRS, len(chats)))):
        name, messages = chats[number]
        places = _places(messages)
        if not places:
            continue
        place = chosen.choice(places)
        reply = messages[place]["content"]
        drawn = chosen.sample(replies, _OTHERS)
        others = [text for other, text in drawn if other != number and text != reply]
        nearest = min(others, key=lambda text: abs(len(text) - len(reply)))
        yield {"id": name, "prompt": messages[:place], "chosen": reply, "rejected": nearest}


def _read(source: Path) -> Iterator[tuple[str, list[Message]]]:
    for record in read_chats(source) or ():
        if record.text and not check_order(messages := parse_messages(record.text)):
            yield str(record.id), messages


def _places(messages: Sequence[Message]) -> list[int]:
    """Where replies stand that something was said before, and that say something."""
    return [
        place
        for place, message in enumerate(messages[:_MOST_TURNS])
        if message["role"] == "assistant" and len(message["content"]) >= _SHORTEST
    ]


if __name__ == "__main__":
    sys.exit(main())
