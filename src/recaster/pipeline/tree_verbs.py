"""The verbs of trees: draw, score."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from recaster.core.errors import DataError, RecipeError
from recaster.core.files import write_bytes

_GZIP = b"\x1f\x8b"


def draw_trees(source: tuple[str, bytes], *, svg: Path | None, most: int) -> dict[str, Any]:
    """Drawings of the first `most` sentences: as text, or as the names of SVG files in the new folder `svg`.

    Args:
        source: a name for messages, and CoNLL-U as bytes, packed with gzip or not.

    Raises:
        DataError: a sentence is broken, or has no tree.
        RecipeError: the folder is there already.
    """
    from recaster.evaluation.tree_drawing import draw_svg, draw_text

    if svg is not None and svg.exists():
        raise RecipeError(
            "The folder is there already.", where="--svg", value=str(svg), repair="name a new one"
        )
    drawn = []
    for number, sentence in enumerate(_parse(source)[:most], start=1):
        name = sentence.comment("sent_id") or str(number)
        if svg is None:
            drawn.append({"id": name, "drawing": f"{sentence.text()}\n{draw_text(sentence)}"})
            continue
        svg.mkdir(parents=True, exist_ok=True)
        path = svg / f"{number:04d}.svg"
        write_bytes(path, draw_svg(sentence).encode())
        drawn.append({"id": name, "drawing": str(path)})
    return {"trees": drawn}


def score_files(gold: tuple[str, bytes], system: tuple[str, bytes]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of everything that the shared task scores.

    Raises:
        DataError: a sentence is broken, or the two are not of one text.
    """
    from recaster.evaluation.conll18 import score_trees

    try:
        scores = score_trees(_parse(gold), _parse(system))
    except ValueError as error:
        raise DataError(
            "The two files cannot be compared.",
            where=f"{gold[0]} and {system[0]}",
            value=str(error),
            repair="give the parser the same text, or the gold file itself",
        ) from error
    return {
        name: {
            "precision": one.correct / one.system if one.system else 0.0,
            "recall": one.correct / one.gold if one.gold else 0.0,
            "f1": one.f1,
        }
        for name, one in scores.items()
    }


def _parse(source: tuple[str, bytes]) -> list[Any]:
    from recaster.models.conllu import parse_sentence, split_blocks

    name, content = source
    try:
        text = (gzip.decompress(content) if content.startswith(_GZIP) else content).decode("utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(
            "This is no text in UTF-8.", where=name, value=str(error), repair="name CoNLL-U"
        ) from error
    found = []
    for number, block in enumerate(split_blocks(text), start=1):
        try:
            found.append(parse_sentence(block))
        except ValueError as error:
            raise DataError(
                "A sentence is not in CoNLL-U.",
                where=f"{name}, sentence {number}",
                value=str(error),
                repair="correct it; https://universaldependencies.org/format.html has the format",
            ) from error
    return found
