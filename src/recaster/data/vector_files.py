r"""Files of word vectors as others write and read them.

22723 100                       word2vec's text: words and width; GloVe's has no such line
the 0.0118 -0.2043 …            a word, its numbers
22723 100\nthe \x8f\xc2…\n…        word2vec's binary: float32 after each word
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from recaster.core.errors import DataError

Vectors = NDArray[np.float32]
_LONGEST_WORD = 4096
"""Bytes."""
_NUMBER_BYTES = 4


def write_text(path: Path, words: Sequence[str], vectors: Vectors) -> None:
    """Write word2vec's text form; numbers come back as the same float32."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{len(words)} {vectors.shape[1]}\n")
        for word, vector in zip(words, vectors, strict=True):
            # The shortest text of a float32 that is read as the same one.
            file.write(f"{word} {' '.join(str(value) for value in vector)}\n")


def write_binary(path: Path, words: Sequence[str], vectors: Vectors) -> None:
    """Write word2vec's binary form."""
    with path.open("wb") as file:
        file.write(f"{len(words)} {vectors.shape[1]}\n".encode())
        for word, vector in zip(words, np.ascontiguousarray(vectors, dtype="<f4"), strict=True):
            file.write(word.encode() + b" " + vector.tobytes() + b"\n")


def read_vectors(path: Path, *, wanted: set[str] | None = None) -> tuple[list[str], Vectors]:
    """The words and vectors `(words, width)` of a file: word2vec's text or binary, GloVe's text; `.gz` too.

    A word that is there twice keeps its first vector.

    Args:
        wanted: words to take; None for all. Large files are read through, and only these are kept.

    Raises:
        DataError: it is none of these, or is cut off.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
        file = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)
        head = file.peek(1 << 16)
        rows = _read_binary(file, path) if _is_binary(head) else _read_text(file, path)
        kept: dict[str, Vectors] = {}
        for word, vector in rows:
            if (wanted is None or word in wanted) and word not in kept:
                kept[word] = vector
    if not kept:
        return [], np.zeros((0, 0), dtype=np.float32)
    return list(kept), np.stack(list(kept.values()))


def _is_binary(head: bytes) -> bool:
    """Whether after a line of two numbers something follows that is no text of numbers."""
    first, _, rest = head.partition(b"\n")
    if not _is_header(first.split()):
        return False
    _, _, numbers = rest.partition(b" ")
    try:
        _ = [float(value) for value in numbers[:64].rsplit(b" ", 1)[0].split(b"\n")[0].split()]
    except ValueError:
        return True
    return False


def _is_header(parts: Sequence[bytes]) -> bool:
    return len(parts) == 2 and all(part.isdigit() for part in parts)


def _read_text(file: BinaryIO, path: Path) -> Iterator[tuple[str, Vectors]]:
    width = 0
    for number, line in enumerate(file, start=1):
        parts = line.rstrip().split(b" ")
        if number == 1 and _is_header(parts):
            width = int(parts[1])
            continue
        width = width or len(parts) - 1
        # GloVe's largest files have words with spaces in them: the numbers are the last ones.
        word, values = b" ".join(parts[:-width]), parts[-width:]
        try:
            vector = np.array([float(value) for value in values], dtype=np.float32)
            text = word.decode()
        except ValueError as error:  # of decoding too
            raise _damaged(path, f"line {number}", str(error)) from None
        if len(vector) != width or not text:
            raise _damaged(path, f"line {number}", f"{len(parts) - 1} numbers, wanted {width}")
        yield text, vector


def _read_binary(file: BinaryIO, path: Path) -> Iterator[tuple[str, Vectors]]:
    count, width = (int(part) for part in file.readline().split())
    for number in range(1, count + 1):
        word = _read_word(file, path, number)
        numbers = file.read(_NUMBER_BYTES * width)
        if len(numbers) < _NUMBER_BYTES * width:
            raise _damaged(path, f"word {number}", f"the file ends, {count} words were announced")
        try:
            text = word.decode()
        except UnicodeDecodeError as error:
            raise _damaged(path, f"word {number}", str(error)) from None
        yield text, np.frombuffer(numbers, dtype="<f4").astype(np.float32)


def _read_word(file: BinaryIO, path: Path, number: int) -> bytes:
    letters = bytearray()
    while (letter := file.read(1)) != b" ":
        if not letter or len(letters) > _LONGEST_WORD:
            raise _damaged(path, f"word {number}", "no space after a word")
        if letter != b"\n":  # word2vec writes one before each word, others do not
            letters += letter
    return bytes(letters)


def _damaged(path: Path, place: str, what: str) -> DataError:
    return DataError(
        "This is no file of word vectors, or it is damaged.",
        where=f"{path}, {place}",
        value=what,
        repair="give word2vec's text or binary form, or GloVe's text",
    )
