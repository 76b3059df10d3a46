"""A gallery of enrolled people: embeddings in content-addressed blocks, found by search, removed for good.

gallery.json                 model, threshold, blocks, index, removals: written last, in one step
blocks/<sha256>.safetensors  vectors (faces, embedding) float32, and a person's name for each
index-<sha256>.faiss         of all vectors, for approximate search; only after `build_index`

Removing a person writes the person's block without them and the manifest, then overwrites and deletes the
former block and the index, which held their vectors too. What stays is a record that something was removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from recaster.core.clock import now
from recaster.core.errors import DataError, RecipeError
from recaster.core.files import read_json, write_bytes, write_json
from recaster.core.hashing import hash_file, hash_value
from recaster.core.locks import hold_lock
from recaster.serving.gallery_index import build_faiss, open_faiss

MANIFEST = "gallery.json"
_BLOCK_FACES = 4096
_QUERY_ROWS = 64
_WAIT_SECONDS = 600.0
_EQUAL = 1e-6

Vectors = NDArray[np.float32]
"""`(faces, embedding)`, each of length 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A person who was found."""

    person: str
    score: float
    """Cosine of the nearest of the person's faces."""
    accepted: bool
    """Whether it is above the gallery's threshold."""


class Gallery:
    """A gallery as it is on disk now."""

    def __init__(self, folder: Path) -> None:
        path = folder / MANIFEST
        if not path.exists():
            raise RecipeError(
                "There is no gallery here.",
                where=str(folder),
                value=f"it has no {MANIFEST}",
                repair="`recaster faces enrol` makes one",
            )
        self.folder = folder
        self.manifest: dict[str, Any] = read_json(path)
        self._stacked: tuple[Vectors, list[str]] | None = None

    @property
    def faces(self) -> int:
        """How many are enrolled."""
        return sum(block["faces"] for block in self.manifest["blocks"])

    def load(self) -> tuple[Vectors, list[str]]:
        """All vectors, and the person of each."""
        if self._stacked is None:
            pieces, names = [np.zeros((0, self.manifest["embedding"]), dtype=np.float32)], []
            for block in self.manifest["blocks"]:
                vectors, own = _read_block(self.folder, block["file"])
                pieces.append(vectors)
                names += own
            self._stacked = np.concatenate(pieces), names
        return self._stacked

    def search(self, queries: Vectors, *, people: int, approximate: bool = False) -> list[list[Match]]:
        """The nearest `people` of each query `(rows, embedding)`, the nearest first.

        Args:
            approximate: ask the index, which may miss some; else every vector is compared.

        Raises:
            RecipeError: there is no index, or faiss is not installed.
        """
        vectors, names = self.load()
        index = open_faiss(self.folder / self._index_file()) if approximate else None
        found: list[list[Match]] = []
        for start in range(0, len(queries), _QUERY_ROWS):
            block = queries[start : start + _QUERY_ROWS]
            scores = None if index else block @ vectors.T
            for row, query in enumerate(block):
                if index is None:
                    found.append(self._pick(scores[row], names, people))  # type: ignore[index]
                    continue
                rows = index.search(query[None], min(len(names), 16 * people))[1][0]
                rows = rows[rows >= 0]
                own = [names[number] for number in rows.tolist()]
                found.append(self._pick(vectors[rows] @ query, own, people))
        return found

    def _pick(self, scores: NDArray[np.float32], names: Sequence[str], people: int) -> list[Match]:
        wanted = min(len(scores), 4 * people)
        while True:
            best = np.argpartition(-scores, wanted - 1)[:wanted] if wanted else np.zeros(0, dtype=int)
            nearest: dict[str, float] = {}
            for row in best[np.argsort(-scores[best], kind="stable")].tolist():
                nearest.setdefault(names[row], float(scores[row]))
            if len(nearest) >= people or wanted == len(scores):
                break
            wanted = min(len(scores), 4 * wanted)  # many faces of few people
        limit = self.manifest["threshold"]
        return [
            Match(person=name, score=score, accepted=score > limit)
            for name, score in list(nearest.items())[:people]
        ]

    def _index_file(self) -> str:
        if self.manifest["index"] is None:
            raise RecipeError(
                "The gallery has no index.",
                where=str(self.folder),
                value="it is deleted by each enrolment and removal, since it holds vectors",
                repair="recaster faces index, or search without --approximate",
            )
        return str(self.manifest["index"])


def enrol(folder: Path, person: str, vectors: Vectors, *, model: str, threshold: float) -> Gallery:
    """Add faces of `person` to the gallery in `folder`, which is made where there is none.

    Args:
        model: what made the vectors; those of another are not comparable.

    Raises:
        RecipeError: the gallery is of another model.
        DataError: a face is enrolled already, maybe as another person.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _changing(folder):
        if not (folder / MANIFEST).exists():
            empty = {"model": model, "embedding": vectors.shape[1], "threshold": threshold}
            write_json(folder / MANIFEST, {**empty, "blocks": [], "index": None, "removals": []})
        gallery = Gallery(folder)
        check_model(gallery, model)
        present, names = gallery.load()
        for row in range(len(vectors)):
            scores = present @ vectors[row]
            if len(scores) and scores.max() > 1 - _EQUAL:
                raise DataError(
                    "This face is enrolled already.",
                    where=str(folder),
                    value=f"picture {row + 1} of {person!r} is one of {names[int(scores.argmax())]!r}",
                    repair="leave it out, or remove that person first",
                )
        manifest = dict(gallery.manifest)
        blocks = list(manifest["blocks"])
        last, own = np.zeros((0, vectors.shape[1]), dtype=np.float32), list[str]()
        if blocks and blocks[-1]["faces"] < _BLOCK_FACES:
            last, own = _read_block(folder, blocks.pop()["file"])
        joined, own = np.concatenate([last, vectors.astype(np.float32)]), own + [person] * len(vectors)
        for start in range(0, len(joined), _BLOCK_FACES):
            part = slice(start, start + _BLOCK_FACES)
            blocks.append(_write_block(folder, joined[part], own[part]))
        _commit(folder, {**manifest, "blocks": blocks, "index": None})
    return Gallery(folder)


def remove(folder: Path, person: str) -> dict[str, Any]:
    """Delete every face of `person`; return the record and the nonce that proves whom it was about.

    Raises:
        DataError: nobody of this name is enrolled.
    """
    with _changing(folder):
        gallery = Gallery(folder)
        blocks, removed = [], 0
        for block in gallery.manifest["blocks"]:
            vectors, names = _read_block(folder, block["file"])
            kept = np.array([name != person for name in names], dtype=bool)
            removed += int((~kept).sum())
            if kept.all():
                blocks.append(block)
            elif kept.any():
                blocks.append(_write_block(folder, vectors[kept], [n for n in names if n != person]))
        if not removed:
            raise DataError(
                "Nobody of this name is enrolled.",
                where=str(folder),
                value=person,
                repair="names are case-sensitive; `recaster faces check` counts who is there",
            )
        nonce, former = secrets.token_hex(16), gallery.manifest["removals"]
        record = {
            "at": now(),
            "faces": removed,
            "receipt": _receipt(person, nonce),
            "previous": former[-1]["hash"] if former else "",
        }
        record["hash"] = hash_value(record)
        _commit(folder, {**gallery.manifest, "blocks": blocks, "index": None, "removals": [*former, record]})
    return {**record, "nonce": nonce}


def build_index(folder: Path) -> Path:
    """Build the index for approximate search over all vectors.

    Raises:
        RecipeError: faiss is not installed, or nobody is enrolled.
    """
    with _changing(folder):
        gallery = Gallery(folder)
        vectors, _ = gallery.load()
        work = folder / ".index.work"
        build_faiss(vectors, work)
        name = f"index-{hash_file(work)}.faiss"
        work.replace(folder / name)
        _commit(folder, {**gallery.manifest, "index": name})
    return folder / name


def check(folder: Path, *, person: str | None = None, nonce: str | None = None) -> dict[str, Any]:
    """Hold every file against the manifest, and the removals against each other.

    Args:
        nonce: of the removal of `person`: says whether one of the records is about them.

    Raises:
        DataError: a file is damaged, missing, or should not be there.
    """
    gallery, previous = Gallery(folder), ""
    for block in gallery.manifest["blocks"]:
        path = folder / block["file"]
        if not path.exists() or f"blocks/{hash_file(path)}.safetensors" != block["file"]:
            raise _damaged(path, "missing, or not what its name says")
    for path in _strays(folder, gallery.manifest):
        raise _damaged(path, "in no manifest: a change was cut off")
    for record in gallery.manifest["removals"]:
        told = {key: value for key, value in record.items() if key != "hash"}
        if record["previous"] != previous or hash_value(told) != record["hash"]:
            raise _damaged(folder / MANIFEST, f"the removal at {record['at']} was changed")
        previous = record["hash"]
    _, names = gallery.load()
    facts: dict[str, Any] = {
        "people": len(set(names)),
        "faces": len(names),
        "removals": len(gallery.manifest["removals"]),
        "indexed": gallery.manifest["index"] is not None,
    }
    if person is not None:
        facts["enrolled"] = person in names
        wanted = _receipt(person, nonce or "")
        facts["removed"] = any(record["receipt"] == wanted for record in gallery.manifest["removals"])
    return facts


def check_model(gallery: Gallery, model: str) -> None:
    """Refuse vectors of another model.

    Raises:
        RecipeError: the gallery's vectors are not comparable with those of `model`.
    """
    if gallery.manifest["model"] != model:
        raise RecipeError(
            "The gallery was made by another model, whose embeddings are not comparable.",
            where=str(gallery.folder),
            value=f"weights {gallery.manifest['model'][:12]}, now {model[:12]}",
            repair="enrol everyone again into a new gallery with the present model",
        )


def _receipt(person: str, nonce: str) -> str:
    return hashlib.sha256(f"{nonce}\0{person}".encode()).hexdigest()


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """Alone, and with what a cut-off change left swept away."""
    lock = folder / ".lock"
    with hold_lock(lock, name=f"the gallery {folder}", wait_seconds=_WAIT_SECONDS, on_wait=lambda _: None):
        if (folder / MANIFEST).exists():
            _sweep(folder, read_json(folder / MANIFEST))
        yield


def _commit(folder: Path, manifest: dict[str, Any]) -> None:
    write_json(folder / MANIFEST, manifest)
    _sweep(folder, manifest)


def _strays(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    named = {folder / block["file"] for block in manifest["blocks"]}
    named.add(folder / (manifest["index"] or MANIFEST))
    found = [*(folder / "blocks").glob("*"), *folder.glob("index-*"), *folder.glob(".index.work")]
    return sorted(set(found) - named)


def _sweep(folder: Path, manifest: dict[str, Any]) -> None:
    for path in _strays(folder, manifest):
        size = path.stat().st_size
        with path.open("r+b") as file:  # so that freed blocks of an ordinary disk hold nothing either
            for start in range(0, size, 1 << 20):
                file.write(b"\0" * min(1 << 20, size - start))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()


def _write_block(folder: Path, vectors: Vectors, names: Sequence[str]) -> dict[str, Any]:
    content = save({"vectors": np.ascontiguousarray(vectors)}, metadata={"names": json.dumps(list(names))})
    name = f"blocks/{hashlib.sha256(content).hexdigest()}.safetensors"
    (folder / "blocks").mkdir(exist_ok=True)
    write_bytes(folder / name, content)
    return {"file": name, "faces": len(names)}


def _read_block(folder: Path, name: str) -> tuple[Vectors, list[str]]:
    with safe_open(folder / name, framework="numpy") as file:
        vectors: Vectors = file.get_tensor("vectors")
        names: list[str] = json.loads(file.metadata()["names"])
    return vectors, names


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        "The gallery is damaged.",
        where=str(path),
        value=what,
        repair="the next enrolment or removal sweeps up; else restore it, without people removed since",
    )
