"""Plain text as its owners keep it, a document at a time, bad ones included.

notes.txt, train.en, .gz    a line, what stands between blank lines, or the whole file, as the recipe says;
                            .en, .de and the like: languages of parallel text
notes.jsonl, .csv, .tsv     the column `text` of each row
notes/                      all such files below, in the order of their names
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from recaster.core.errors import DataError
from recaster.data.records import RawRecord
from recaster.data.text_sources import read_lines, read_texts

DocumentKind = Literal["line", "paragraph", "file"]
"""What a document is in a text file."""
_LANGUAGE = len(".en")
_OTHER = (".md", ".py", ".sh", ".js", ".db", ".xz")
"""As short as a language, but none."""
_TABLES = (".jsonl", ".csv", ".tsv")


def read_documents(path: Path, document: DocumentKind) -> Iterator[RawRecord] | None:
    """The documents at `path` in a fixed order; None when it is of no known kind.

    Raises:
        DataError: a folder without a file of a known kind.
    """
    if path.is_dir():
        return _read_folder(path, document)
    kind = _kind(path)
    if kind == ".txt":
        return _divide(path, path.name, document)
    return (replace(record, label=None) for record in read_texts(path) or ()) if kind in _TABLES else None


def _read_folder(folder: Path, document: DocumentKind) -> Iterator[RawRecord]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _kind(path) in (".txt", *_TABLES))
    if not files:
        raise DataError(
            "The folder has no texts.",
            where=str(folder),
            value="no .txt, .jsonl, .csv or .tsv file, nor one of these as .gz",
            repair="put the texts there, or correct data.source",
        )
    for path in files:
        name = path.relative_to(folder).as_posix()
        if _kind(path) == ".txt":
            yield from _divide(path, name, document)
        else:
            for record in read_documents(path, document) or ():
                yield replace(record, id=record.id and f"{name}/{record.id}")


def _divide(path: Path, name: str, document: DocumentKind) -> Iterator[RawRecord]:
    """The documents of one text file; an id is the number of a document's first line."""
    found: list[str] = []
    first, problem, expected = 0, "", 0
    for number, line, wrong in read_lines(path):
        if found and (document == "line" or (document == "paragraph" and number != expected)):
            yield _make(path, name, first, found, problem)
            found, problem = [], ""
        first = first if found else number
        found.append(line)
        problem, expected = problem or wrong, number + 1
    if found:
        yield _make(path, name, first, found, problem)


def _make(path: Path, name: str, first: int, lines: Iterable[str], problem: str) -> RawRecord:
    where = f"{path}, from line {first}"
    return RawRecord(id=f"{name}:{first}", label=None, where=where, text="\n".join(lines), problem=problem)


def _kind(path: Path) -> str:
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    language = len(kind) == _LANGUAGE and kind[1:].isalpha() and kind not in _OTHER
    return ".txt" if language else kind
