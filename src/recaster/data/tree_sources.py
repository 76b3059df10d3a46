"""Sentences with trees as their owners keep them, one at a time, bad ones included.

en_ewt-ud-train.conllu, .conllu.gz     sentences in CoNLL-U, apart by blank lines
new.jsonl                              {"id": "a", "text": …}: CoNLL-U, or raw text to parse
letter.txt                             raw text to parse, the whole file
ud/                                    all such files below, in the order of their names
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from recaster.core.errors import DataError
from recaster.data.records import RawRecord
from recaster.data.text_sources import read_texts
from recaster.models.conllu import is_conllu, parse_sentence

_KINDS = (".conllu", ".conll", ".jsonl", ".txt")


def read_trees(path: Path) -> Iterator[RawRecord] | None:
    """The sentences, or texts, at `path` in a fixed order; None when it is of no known kind.

    Raises:
        DataError: a folder without a file of a known kind.
    """
    if path.is_dir():
        return _read_folder(path)
    kind = _kind(path)
    if kind in (".conllu", ".conll"):
        return _read_sentences(path)
    if kind == ".jsonl":
        return (_check_columns(replace(record, label=None)) for record in read_texts(path) or ())
    return _read_text(path) if kind == ".txt" else None


def _kind(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _read_folder(folder: Path) -> Iterator[RawRecord]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _kind(path) in _KINDS[:2])
    if not files:
        raise DataError(
            "The folder has no trees.",
            where=str(folder),
            value="no .conllu file, nor one as .gz",
            repair="put the treebank there, or correct data.source",
        )
    for path in files:
        for record in _read_sentences(path):
            yield replace(record, id=f"{path.relative_to(folder).as_posix()}/{record.id}")


def _read_sentences(path: Path) -> Iterator[RawRecord]:
    """Sentences by their sent_id, or by the number of their first line."""
    lines: list[str] = []
    first, problem = 0, ""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line, wrong = _decode(raw, number)
            problem = problem or wrong
            if line.strip():
                first = first or number
                lines.append(line)
            elif lines:
                yield _to_record(path, first, lines, problem)
                lines, first, problem = [], 0, ""
    if lines:
        yield _to_record(path, first, lines, problem)


def _decode(raw: bytes, number: int) -> tuple[str, str]:
    """A line without its end, and what is wrong with its bytes; a byte order mark is left out."""
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"), ""
    except UnicodeDecodeError as error:
        text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        return text, f"line {number} is not UTF-8 at byte {error.start}"


def _to_record(path: Path, first: int, lines: list[str], problem: str) -> RawRecord:
    named = next((line for line in lines if line.replace(" ", "").startswith("#sent_id=")), None)
    name = named.partition("=")[2].strip() if named else f"{path.name}:{first}"
    where, text = f"{path}, line {first}", "\n".join(lines)
    try:
        parse_sentence(text)
    except ValueError as error:
        problem = problem or str(error)
    return RawRecord(id=name, label=None, where=where, text=text, problem=problem)


def _check_columns(record: RawRecord) -> RawRecord:
    """A record of a JSON line, with a problem where it seems to be CoNLL-U and is not."""
    text = (record.text or "").strip("\n")
    if record.problem or not is_conllu(text):
        return replace(record, text=text)
    try:
        parse_sentence(text)
    except ValueError as error:
        return replace(record, problem=str(error))
    return replace(record, text=text)


def _read_text(path: Path) -> Iterator[RawRecord]:
    raw = path.read_bytes()
    try:
        text, problem = raw.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        text, problem = raw.decode("utf-8", errors="replace"), f"not UTF-8 at byte {error.start}"
    yield RawRecord(id=path.name, label=None, where=str(path), text=text, problem=problem)
