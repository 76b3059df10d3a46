"""From documents to numbered words: phrases, vocabulary, shards; and the pairs that vectors are measured on.

vocabulary.json   {"words": ["the", …], "phrases": [["new_york", …]], "keep_case": false}
counts.npy        (words,) int64, of each in the training split, the most frequent first
test.pairs.json   {"pairs": [["WS-353", "tiger", "cat", 7.35], …], "analogies": [["capitals", …4 words], …]}
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recaster.core.errors import DataError
from recaster.core.files import write_json
from recaster.data.token_shards import write_token_shard
from recaster.data.word_rows import COUNTS
from recaster.models.word_table import JOINT, join_phrases, split_words

if TYPE_CHECKING:
    from recaster.data.packed import PackedRecord
    from recaster.recipe.words import Phrases, WordsShape

VOCABULARY, PAIRS = "vocabulary.json", "test.pairs.json"
_LEAST_WORDS = 2
_PAIR, _ANALOGY = 3, 4
"""Columns of a line."""


def write_corpus(
    folder: Path, splits: dict[str, list[PackedRecord]], shape: WordsShape, *, vocabulary: int
) -> dict[str, Any]:
    """Find phrases and words of the training split, write both splits' documents as shards.

    Args:
        vocabulary: the most words that get a vector.

    Returns:
        Counts for people and later steps.

    Raises:
        DataError: hardly a word is frequent enough, or a split has none.
    """
    documents = {
        name: [split_words(record.text, keep_case=shape.keep_case) for record in records]
        for name, records in splits.items()
    }
    passes = find_phrases(documents["train"], shape.phrases) if shape.phrases else []
    joined = {name: [join_phrases(one, passes) for one in own] for name, own in documents.items()}
    counts = Counter(word for document in joined["train"] for word in document)
    frequent = [word for word, count in counts.items() if count >= shape.min_count]
    words = sorted(frequent, key=lambda word: (-counts[word], word))[:vocabulary]
    _check_enough(words, counts, shape)
    write_json(
        folder / VOCABULARY,
        {"words": words, "phrases": [sorted(one) for one in passes], "keep_case": shape.keep_case},
    )
    np.save(folder / COUNTS, np.array([counts[word] for word in words], dtype=np.int64))
    numbers = {word: number for number, word in enumerate(words)}
    known = {name: _write_documents(folder, name, splits[name], own, numbers) for name, own in joined.items()}
    total = {name: sum(len(one) for one in own) for name, own in joined.items()}
    return {
        "rows": {name: len(own) for name, own in splits.items()},
        "words": total,
        "known_words": known,
        "vocabulary": len(words),
        "left_out_words": len(counts) - len(words),
        "phrases": sum(JOINT in word for word in words),
    }


def _check_enough(words: list[str], counts: Counter[str], shape: WordsShape) -> None:
    if len(words) < _LEAST_WORDS:
        raise DataError(
            "Hardly a word of the training split is frequent enough for a vector.",
            where="data.source",
            value=f"{len(words)} of {len(counts)} different words occur {shape.min_count} times or more",
            repair="lower data.words.min_count, or give more text",
        )


def _write_documents(
    folder: Path,
    name: str,
    records: Sequence[PackedRecord],
    documents: Sequence[Sequence[str]],
    numbers: dict[str, int],
) -> int:
    rows = [[numbers[word] for word in document if word in numbers] for document in documents]
    known = sum(len(row) for row in rows)
    if not known:
        raise DataError(
            "A split has no word that has a vector.",
            where=f"split {name}",
            value=f"{len(records)} documents",
            repair="give more text, or raise split.validation",
        )
    write_token_shard(
        folder,
        name,
        rows=rows,
        labels=np.zeros(len(rows), dtype=np.int64),
        ids=[record.id for record in records],
    )
    return known


def find_phrases(documents: Sequence[Sequence[str]], section: Phrases) -> list[set[str]]:
    """For each pass the pairs that it joins, such as `new_york`.

    Source: Mikolov et al. 2013, section 4, for the score word2vec; Bouma, "Normalized (pointwise) mutual
    information in collocation extraction", 2009, for npmi.
    """
    passes: list[set[str]] = []
    for _ in range(section.passes):
        single: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for document in documents:
            single.update(document)
            pairs.update(pairwise(document))
        total, distinct = sum(single.values()), len(single)
        found = {
            first + JOINT + second
            for (first, second), count in pairs.items()
            if count >= section.min_count
            and _score(count, single[first] * single[second], total, distinct, section) > section.threshold
        }
        passes.append(found)
        if not found:
            break
        documents = [join_phrases(document, [found]) for document in documents]
    return passes


def _score(both: int, product: int, total: int, distinct: int, section: Phrases) -> float:
    """Of a pair that is there `both` times, whose words' counts have this `product`."""
    if section.score == "word2vec":
        return (both - section.min_count) * distinct / product
    share = both / total
    return math.log(share * total * total / product) / -math.log(share) if share < 1 else 1.0


def write_pairs(folder: Path, records: Sequence[PackedRecord], *, keep_case: bool) -> dict[str, int]:
    """Write the pairs and analogies of the test split.

    Returns:
        How many of each there are.

    Raises:
        DataError: a line is neither, or there is no pair.
    """
    pairs: list[list[Any]] = []
    analogies: list[list[str]] = []
    ids: list[str] = []
    for record in records:
        name = _name_set(record.id)
        for line in record.text.splitlines():
            parts = (line if keep_case else line.lower()).split()
            if (
                not parts or parts[0] == ":" or parts[0].startswith("#")
            ):  # a section's head, as word2vec's sets have
                continue
            if len(parts) == _PAIR and (score := _to_number(parts[2])) is not None:
                ids.append(f"{record.id}#{len(pairs)}")
                pairs.append([name, parts[0], parts[1], score])
            elif len(parts) == _ANALOGY:
                analogies.append([name, *parts])
            else:
                raise _no_pair(record.id, line)
    if not pairs:
        raise DataError(
            "The test split has no pair of words to measure on.",
            where="data.published_splits.test",
            value=f"{len(records)} records",
            repair="give lines such as `tiger cat 7.35`",
        )
    write_json(folder / PAIRS, {"pairs": pairs, "analogies": analogies})
    _write_pair_shard(folder, pairs, ids)
    return {"pairs": len(pairs), "analogies": len(analogies)}


def _write_pair_shard(folder: Path, pairs: list[list[Any]], ids: list[str]) -> None:
    """The pairs as rows of numbers too, of which whoever looks for leaks compares: no document is one."""
    words = {word: number for number, word in enumerate(sorted({w for pair in pairs for w in pair[1:3]}))}
    write_token_shard(
        folder,
        "test",
        rows=[[-1 - words[pair[1]], -1 - words[pair[2]]] for pair in pairs],
        labels=np.zeros(len(pairs), dtype=np.int64),
        ids=ids,
    )


def _name_set(record_id: str) -> str:
    name = record_id.removeprefix("test/").rpartition(":")[0] or record_id
    return Path(name).name.removesuffix(".gz").removesuffix(".txt")


def _to_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _no_pair(where: str, line: str) -> DataError:
    return DataError(
        "A line is neither a judged pair nor an analogy.",
        where=f"data.published_splits.test, {where}",
        value=line[:80],
        repair="write `word word score`, or four words",
    )
