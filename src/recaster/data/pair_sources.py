"""Texts and their translations as their owners keep them, one record at a time, bad ones included.

{"id": "a7", "en": "two dogs run", "de": "zwei Hunde rennen"}     a line of a JSON lines file
id,en,de,fr                                                       the header of a CSV file (TSV: tabs)
train.*                                                           train.en, train.de: line by line
requests.txt                                                      sources alone, for a model to translate
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

from recaster.core.errors import DataError
from recaster.data.records import RawRecord
from recaster.data.text_sources import SEPARATORS, parse_object, read_columns, read_lines, read_rows
from recaster.recipe.pairs import PairShape

STAR = "*"
Sides = dict[str, str]
"""A text by language."""


def parallel_files(path: Path, shape: PairShape) -> list[Path]:
    """The file of each language where `path` has a star in its name, else `path` alone."""
    if STAR not in path.name:
        return [path]
    return [path.with_name(path.name.replace(STAR, language)) for language in shape.languages]


def read_pairs(path: Path, shape: PairShape) -> Iterator[RawRecord] | None:
    """The records of the file, or of the parallel files, at `path`; None when it is of no known kind.

    A record has the languages of the recipe that its row has a text in; `.gz` is unpacked.

    Raises:
        DataError: parallel files with unequal numbers of lines, or a table without the languages.
    """
    if STAR in path.name:
        return _read_parallel(path, shape)
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind == ".jsonl":
        return _read_json_lines(path, shape.languages)
    if kind == ".txt":
        return _read_sources(path, shape.directions[0].partition("-")[0])
    return _read_table(path, SEPARATORS[kind], shape.languages) if kind in SEPARATORS else None


def dump_sides(sides: Sides) -> str:
    """Texts by language as the text of their record."""
    return json.dumps(sides, ensure_ascii=False)


def parse_sides(text: str) -> Sides:
    """The texts by language of a record's text."""
    sides: Sides = json.loads(text)
    return sides


def _read_parallel(path: Path, shape: PairShape) -> Iterator[RawRecord]:
    files = parallel_files(path, shape)
    _check_equal_lines(files)
    name = path.name.replace(f".{STAR}", "").replace(STAR, "")
    with ExitStack() as stack:
        opened = [stack.enter_context(_open(file)) for file in files]
        for number, lines in enumerate(zip_longest(*opened), start=1):
            sides, problem = {}, ""
            for language, line in zip(shape.languages, lines, strict=True):
                sides[language], wrong = _decode(line, first=number == 1)
                problem = problem or (wrong and f"{language}: {wrong}")
            yield RawRecord(
                id=f"{name}:{number}",
                label=None,
                where=f"{path}, line {number}",
                text=dump_sides(sides),
                problem=problem,
            )


def _check_equal_lines(files: Sequence[Path]) -> None:
    counts = []
    for file in files:
        with _open(file) as opened:
            counts.append(sum(1 for _ in opened))
    if len(set(counts)) > 1:
        raise DataError(
            "Parallel files have unequal numbers of lines: which line translates which is unknown.",
            where=str(files[0].parent),
            value=", ".join(f"{file.name} {count}" for file, count in zip(files, counts, strict=True)),
            repair="let line n of each file be the same text in another language; leave empty ones in place",
        )


def _open(path: Path) -> Any:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _decode(line: bytes, *, first: bool) -> tuple[str, str]:
    """A line's text without its end, and what is wrong with it; a byte order mark is left out."""
    try:
        return line.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n"), ""
    except UnicodeDecodeError as error:
        return line.decode("utf-8", errors="replace").rstrip("\r\n"), f"not UTF-8 at byte {error.start}"


def _read_json_lines(path: Path, languages: Sequence[str]) -> Iterator[RawRecord]:
    for number, line, problem in read_lines(path):
        row, wrong = parse_object(line)
        sides = {language: row[language] for language in languages if row.get(language) is not None}
        odd = [language for language, text in sides.items() if not isinstance(text, str)]
        if odd:
            wrong = f"{odd[0]} is {type(sides[odd[0]]).__name__}, wanted a string"
        elif not sides:
            wrong = wrong or f"has a text in none of {', '.join(languages)}"
        yield RawRecord(
            id=str(row.get("id") or f"{path.name}:{number}"),
            label=None,
            where=f"{path}, line {number}",
            text=None if wrong else dump_sides(sides),
            problem=problem or wrong,
        )


def _read_table(path: Path, separator: str, languages: Sequence[str]) -> Iterator[RawRecord]:
    columns = read_columns(path, separator)
    found = [language for language in languages if language in columns]
    if not found:
        raise DataError(
            "The table has a column for none of the recipe's languages.",
            where=f"{path}, line 1",
            value=", ".join(columns) or "(empty)",
            repair=f"begin with a header such as {separator.join(['id', *languages])}",
        )
    for number, row, problem in read_rows(path, separator, needed=found):
        yield RawRecord(
            id=row.get("id") or f"{path.name}:{number}",
            label=None,
            where=f"{path}, line {number}",
            text=dump_sides({language: row[language] or "" for language in found}),
            problem=problem,
        )


def _read_sources(path: Path, language: str) -> Iterator[RawRecord]:
    """Lines to translate; as training data they lack their translations, which the contract says."""
    for number, line, problem in read_lines(path):
        yield RawRecord(
            id=f"{path.name}:{number}",
            label=None,
            where=f"{path}, line {number}",
            text=dump_sides({language: line}),
            problem=problem,
        )
