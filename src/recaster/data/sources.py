"""Raw records of any kind from the recipe's data section.

A record that cannot be read is still a record: it says what is wrong with it, and the data
contract puts it to quarantine. Only a source that cannot be opened at all is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from recaster.core.errors import DataError
from recaster.core.hashing import hash_directory, hash_file, hash_value
from recaster.core.settings import Settings
from recaster.data import (
    box_sources,
    chat_sources,
    document_sources,
    image_sources,
    pair_sources,
    picture_list,
    remote,
    synthetic,
    synthetic_faces,
    synthetic_pairs,
    synthetic_shapes,
    synthetic_trees,
    synthetic_words,
    text_sources,
    tree_sources,
)
from recaster.data.picture_archive import SUFFIXES as ARCHIVES
from recaster.data.records import RawRecord
from recaster.data.subset import thin
from recaster.recipe.data import DataSection, Subset

_BUILTIN: dict[str, tuple[str, Callable[[], Path], Callable[[], Iterator[RawRecord]]]] = {
    "builtin:digits": ("image", image_sources.digits_file, image_sources.read_digits),
    "builtin:synthetic-faces": ("image", synthetic_faces.source_file, synthetic_faces.make_faces),
    "builtin:synthetic-shapes": ("boxes", synthetic_shapes.source_file, synthetic_shapes.make_shapes),
    "builtin:synthetic-requests": ("text", synthetic.source_file, synthetic.make_requests),
    "builtin:synthetic-chats": ("chat", synthetic.source_file, synthetic.make_chats),
    "builtin:synthetic-preferences": ("chat", synthetic.source_file, synthetic.make_preferences),
    "builtin:synthetic-sentences": ("words", synthetic_words.source_file, synthetic_words.make_sentences),
    "builtin:synthetic-word-pairs": ("words", synthetic_words.source_file, synthetic_words.make_pairs),
    "builtin:synthetic-notes": ("corpus", synthetic.source_file, synthetic.make_notes),
    "builtin:synthetic-pairs": ("pairs", synthetic_pairs.source_file, synthetic_pairs.make_pairs),
    "builtin:synthetic-trees": ("trees", synthetic_trees.source_file, synthetic_trees.make_trees),
}
"""Kind, the file whose content decides the records, and the records."""
Reader = Callable[[Path], Iterator[RawRecord] | None]
_FORMS = {
    "image": "an image folder (label/name.png), a .zip of one, a .jsonl or .csv file (of pixels or paths), a "
    ".parquet file (of pictures, paths, or packed by a snapshot), cifar-10-binary.tar.gz",
    "boxes": "a COCO .json, a VOC folder or its ImageSets/Main/NAME.txt, a YOLO folder, or a .jsonl file",
    "text": "a .jsonl, .json, .csv, .tsv or .txt file (LABEL text)",
    "chat": "a .jsonl or .jsonl.gz file of messages or turns, or of chosen and rejected replies",
    "words": "a .txt, .jsonl, .csv or .tsv file, one of these as .gz, or a folder of them",
    "corpus": "a .txt, .jsonl, .csv or .tsv file, one of these as .gz, or a folder of them",
    "pairs": "a .jsonl, .csv or .tsv file with a column for each language, one of these as .gz, or "
    "files such as train.en and train.de, named as train.*",
    "trees": "a .conllu file, also .gz, a folder of them, or to be parsed a .jsonl or .txt file",
}


def hash_source(data: DataSection, settings: Settings) -> str:
    """sha256 (hex) of the present content of the source and of the published splits.

    Raises:
        DataError: one of them is not there. What is at an address need not be fetched for it.
    """
    hashes = [_hash(source, data, settings) for _, source in _sources(data)]
    return hashes[0] if len(hashes) == 1 else hash_value(hashes)


def read_records(data: DataSection, settings: Settings) -> Iterator[RawRecord]:
    """The source's records or their subset, then those of the published splits, in a fixed order.

    Raises:
        DataError: a source is not there, of no known kind, or another than its checksum says.
        ServiceError: an address does not answer.
    """
    for split, source in _sources(data):
        for record in _read(source, data, settings, None if split else data.subset):
            yield replace(record, id=record.id and f"{split}/{record.id}", split=split) if split else record


def _sources(data: DataSection) -> list[tuple[str, str]]:
    published = data.published_splits.model_dump()
    return [("", data.source), *((split, source) for split, source in published.items() if source)]


def _split_parts(source: str) -> tuple[str, tuple[str, ...]]:
    """A source without the names of the parts that are taken of it, and these."""
    address, _, parts = source.rpartition("parts=")
    if not address.endswith(("#", "&")):
        return source, ()
    return address[:-1], tuple(parts.split(","))


def _hash(source: str, data: DataSection, settings: Settings) -> str:
    source, _ = _split_parts(source)
    if source in _BUILTIN:
        return hash_file(_BUILTIN[source][1]())
    if remote.is_remote(source):
        return remote.wanted_hash(source)
    path = _locate(source, data, settings)
    if data.image and picture_list.names_files(path):
        return picture_list.hash_listed(path)
    if data.boxes and (folder := box_sources.beside(path)):
        return hash_value([hash_file(path), hash_directory(folder)])
    if data.pairs and len(files := pair_sources.parallel_files(path, data.pairs)) > 1:
        return hash_value([hash_file(file) for file in files])
    return hash_directory(path) if path.is_dir() else hash_file(path)


def _read(source: str, data: DataSection, settings: Settings, subset: Subset | None) -> Iterator[RawRecord]:
    if source in _BUILTIN:
        kind, _, read = _BUILTIN[source]
        if kind == data.kind:
            return thin(read, subset) if subset else read()
        raise DataError(
            f"This built-in data set has records of kind {kind}.",
            where="recipe key data.source",
            value=f"{source} with section data.{data.kind}",
            repair=f"replace data.{data.kind} by data.{kind}, or name another source",
        )
    address, parts = _split_parts(source)
    path = _locate(address, data, settings)
    has_parts = path.suffix == ".json" if data.text else data.image and path.name.endswith(ARCHIVES)
    if parts and not has_parts:
        raise DataError(
            "Parts are taken of a .json file with texts under several names, and of CIFAR's archive, alone.",
            where="recipe key data.source",
            value=source,
            repair=f"name the whole source: {address}",
        )
    found = _read_path(path, data, subset, parts)
    if found is None:
        raise DataError(
            "The data source is of no known kind.",
            where="recipe key data.source",
            value=source,
            repair=f"name {_FORMS[data.kind]}, or one of {', '.join(_BUILTIN)}",
        )
    return found


def _read_path(
    path: Path, data: DataSection, subset: Subset | None, parts: tuple[str, ...]
) -> Iterator[RawRecord] | None:
    if data.image:
        return image_sources.read_images(path, data.image, subset, parts=parts)
    if data.boxes:
        read: Reader = partial(box_sources.read_boxes, shape=data.boxes, labels=data.labels)
    elif shape := data.corpus or data.words:
        read = partial(document_sources.read_documents, document=shape.document)
    elif data.pairs:
        read = partial(pair_sources.read_pairs, shape=data.pairs)
    elif data.trees:
        read = tree_sources.read_trees
    elif data.text:
        read = partial(text_sources.read_texts, parts=parts)
    else:
        read = chat_sources.read_chats
    if (found := read(path)) is None:
        return None
    return thin(lambda: read(path) or iter(()), subset) if subset else found


def _locate(source: str, data: DataSection, settings: Settings) -> Path:
    if source.startswith("builtin:"):
        raise DataError(
            "There is no built-in data set of this name.",
            where="recipe key data.source",
            value=source,
            repair=f"use one of {', '.join(_BUILTIN)}, or name {_FORMS[data.kind]}",
        )
    if remote.is_remote(source):
        return remote.fetch(source, settings)
    path = settings.project / source
    needed = pair_sources.parallel_files(path, data.pairs) if data.pairs else [path]
    if lacking := [file for file in needed if not file.exists()]:
        raise DataError(
            "The data source is not there.",
            where="recipe key data.source",
            value=str(lacking[0]),
            repair="put the data there, correct the path, or `dvc pull` it",
        )
    return path
