"""CIFAR-10 and CIFAR-100 in the archives of their authors, read without unpacking them.

cifar-10-binary.tar.gz    batches.meta.txt, data_batch_1.bin … test_batch.bin    label, 3 x 1024 bytes
cifar-100-binary.tar.gz   fine_label_names.txt, train.bin, test.bin              coarse and fine label, bytes

Pickled archives (`cifar-10-python.tar.gz`) are not read: opening one runs what is in it.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from recaster.core.errors import DataError
from recaster.data.records import RawRecord

SUFFIXES = (".tar.gz", ".tgz")
_SIDE, _CHANNELS = 32, 3
_PIXELS = _SIDE * _SIDE * _CHANNELS
_NAMES = {"batches.meta.txt": 1, "fine_label_names.txt": 2}
"""The file with the labels' names, and how many labels stand before a picture, the last of which counts."""
_MOST_NAMES_BYTES = 1 << 16


def read_archive(path: Path, *, parts: Sequence[str] = ()) -> Iterator[RawRecord]:
    """The pictures in the archive's order.

    Args:
        parts: those of the archive's files that are taken, without `.bin`; `data_batch` stands for all five
            that begin so. All where none is named.

    Raises:
        DataError: no such archive, damaged, or without one of the parts.
    """
    try:
        names, label_bytes = _read_names(path)
        yield from _read_members(path, names, label_bytes, parts)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            "The archive cannot be read.",
            where=str(path),
            value=str(error),
            repair="bring a whole copy of it",
        ) from error


def _read_names(path: Path) -> tuple[list[str], int]:
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if name in _NAMES and (file := archive.extractfile(member)):
                lines = file.read(_MOST_NAMES_BYTES).decode("utf-8", errors="replace").split()
                return lines, _NAMES[name]
    raise DataError(
        "The archive is not one of pictures that is known here.",
        where=str(path),
        value=f"neither {' nor '.join(_NAMES)} is in it",
        repair="name cifar-10-binary.tar.gz or cifar-100-binary.tar.gz; pack others as a .zip of LABEL/X.png",
    )


def _read_members(
    path: Path, names: list[str], label_bytes: int, parts: Sequence[str]
) -> Iterator[RawRecord]:
    present, taken = [], set()
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.suffix != ".bin" or not (file := archive.extractfile(member)):
                continue
            present.append(name.stem)
            wanted = {part for part in parts if name.stem == part or name.stem.startswith(f"{part}_")}
            if wanted or not parts:
                taken |= wanted
                yield from _read_pictures(file, f"{path}, {name.name}", name.stem, names, label_bytes)
    if lacking := [part for part in parts if part not in taken]:
        raise DataError(
            "The archive has no such part.",
            where=str(path),
            value=", ".join(lacking),
            repair=f"name some of {', '.join(present) or '(it has none)'}",
        )


def _read_pictures(
    file: IO[bytes], where: str, stem: str, names: list[str], label_bytes: int
) -> Iterator[RawRecord]:
    number = 0
    while row := file.read(label_bytes + _PIXELS):
        number += 1
        name, place = f"{stem}:{number:05d}", f"{where}, picture {number}"
        if len(row) < label_bytes + _PIXELS:
            yield RawRecord(
                id=name, label=None, where=place, problem=f"only {len(row)} bytes are left for it"
            )
            return
        label = row[label_bytes - 1]
        known = label < len(names)
        yield RawRecord(
            id=name,
            where=place,
            label=names[label] if known else None,
            pixels=np.frombuffer(row[label_bytes:], dtype=np.uint8)
            .reshape(_CHANNELS, _SIDE, _SIDE)
            .transpose(1, 2, 0),
            problem="" if known else f"label {label} of {len(names)} names",
        )
