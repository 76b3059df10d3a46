"""Texts as their owners keep them, one at a time, bad ones included.

{"id": "a7", "label": "praise", "text": "a stirring film"}     a line of a JSON lines file
id,label,text                                                  the header of a CSV file (TSV: tabs)
praise a stirring film                                         a line of a .txt file: LABEL text
{"train": [["a stirring film", "praise"], …], "test": …}       a .json file, of which parts are taken by name

The first two may name a `group`, such as a source, whose texts are measured apart too.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recaster.core.errors import DataError
from recaster.data.labels import to_text
from recaster.data.records import RawRecord

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def read_texts(path: Path, *, parts: Sequence[str] = ()) -> Iterator[RawRecord] | None:
    """The texts of the file at `path` in its order; None when it is of no known kind. `.gz` is unpacked.

    Args:
        parts: of a .json file the names whose texts are taken; all where none is named.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind == ".jsonl":
        return _read_json_lines(path)
    if kind == ".txt":
        return _read_labelled_lines(path)
    if kind == ".json":
        return _read_json_parts(path, parts)
    return _read_table(path, SEPARATORS[kind]) if kind in SEPARATORS else None


def read_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """Number (from 1), text and problem of each line that is not blank; a byte order mark is left out."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                text, problem = line.decode("utf-8-sig" if number == 1 else "utf-8"), ""
            except UnicodeDecodeError as error:
                text, problem = line.decode("utf-8", errors="replace"), f"not UTF-8 at byte {error.start}"
            yield number, text.rstrip("\r\n"), problem


def _read_labelled_lines(path: Path) -> Iterator[RawRecord]:
    for number, line, problem in read_lines(path):
        label, _, text = line.partition(" ")
        yield RawRecord(
            id=f"{path.name}:{number}",
            label=label,
            where=f"{path}, line {number}",
            text=text.strip(),
            problem=problem,
        )


def _read_json_lines(path: Path) -> Iterator[RawRecord]:
    for number, line, problem in read_lines(path):
        row, wrong = parse_object(line)
        text = row.get("text")
        if not isinstance(text, str):
            wrong = wrong or f"text is {type(text).__name__}, wanted a string"
        yield RawRecord(
            id=str(row.get("id") or f"{path.name}:{number}"),
            label=to_text(row.get("label")),
            where=f"{path}, line {number}",
            text=text if isinstance(text, str) else None,
            group=str(row.get("group") or ""),
            problem=problem or wrong,
        )


def _read_json_parts(path: Path, parts: Sequence[str]) -> Iterator[RawRecord]:
    """Texts of an object of lists; of each text a pair, or an object with `text` and `label`."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        told, problem = parse_object(file.read().decode("utf-8-sig", errors="replace"))
    lacking = [name for name in parts or told if not isinstance(told.get(name), list)]
    if problem or lacking:
        raise DataError(
            "The file is no object of lists of texts." if problem else "The file lacks a part.",
            where=str(path),
            value=problem or lacking[0],
            repair=f"name some of its parts: {', '.join(told)}" if told else "correct it",
        )
    for name in parts or told:
        for number, entry in enumerate(told[name]):
            yield _read_entry(entry, name=f"{name}:{number}", where=f"{path}, {name}[{number}]")


def _read_entry(entry: Any, *, name: str, where: str) -> RawRecord:
    row = entry if isinstance(entry, dict) else {}
    if isinstance(entry, list) and len(entry) == 2:
        row = dict(zip(("text", "label"), entry, strict=True))
    text = row.get("text")
    if isinstance(text, str):
        problem = "not UTF-8" if "\ufffd" in text else ""
    else:
        text, problem = None, f"text is {type(text).__name__}, wanted a string"
    return RawRecord(
        id=str(row.get("id") or name),
        label=to_text(row.get("label")),
        where=where,
        text=text,
        group=str(row.get("group") or ""),
        problem=problem,
    )


def parse_object(line: str) -> tuple[dict[str, Any], str]:
    """The JSON object of a line, or an empty one and what is wrong."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return {}, f"not JSON: {error}"
    return (row, "") if isinstance(row, dict) else ({}, "not a JSON object")


def _read_table(path: Path, separator: str) -> Iterator[RawRecord]:
    columns = read_columns(path, separator)
    if "text" not in columns:
        raise DataError(
            "The table lacks the column text.",
            where=f"{path}, line 1",
            value=", ".join(columns) or "(empty)",
            repair=f"begin with a header such as {separator.join(['id', 'label', 'text'])}",
        )
    for number, row, problem in read_rows(path, separator, needed=["text"]):
        yield RawRecord(
            id=row.get("id") or f"{path.name}:{number}",
            label=row.get("label") or None,
            where=f"{path}, line {number}",
            text=row["text"],
            group=row.get("group") or "",
            problem=problem,
        )


def read_columns(path: Path, separator: str) -> list[str]:
    """The columns that the header of a CSV or TSV file names."""
    with _open_text(path) as file:
        return list(csv.DictReader(file, delimiter=separator).fieldnames or [])


def read_rows(
    path: Path, separator: str, *, needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Of each row of a CSV or TSV file its last line's number, its cells and its problem.

    Args:
        needed: columns without which a row is broken.
    """
    with _open_text(path) as file:
        reader = csv.DictReader(file, delimiter=separator)
        for row in reader:
            yield reader.line_num, row, _table_problem(row, needed)


@contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
        yield io.TextIOWrapper(raw, newline="", encoding="utf-8-sig", errors="replace")


def _table_problem(row: dict[Any, Any], needed: Sequence[str]) -> str:
    cells = [row[column] for column in needed]
    if None in cells or None in row:
        return "has another number of columns than the header"
    return "not UTF-8" if any("\ufffd" in cell for cell in cells) else ""
