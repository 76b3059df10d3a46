"""The parsers of this package: with fresh weights, over a base folder's encoder, or of an exported folder.

scratch:bilstm-parser                         → LSTMs over word vectors and letters
config.json {"model_type": "bert", …}         → its encoder below fresh heads
config.json {"architecture": "sentence_parser"} → a whole parser, as an artifact has it
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.models.bert_encoder import read_size, rename_published
from recaster.models.dependency_parser import DependencyParser, OpenWords, build_model
from recaster.models.loading import load_state, read_state
from recaster.models.parser_columns import Pieces
from recaster.models.segmenter import Segmenter
from recaster.models.sentence_parser import SentenceParser, build_segmenter

SEGMENTER, VOCABULARY = "segmenter.safetensors", "vocabulary.json"
_SPECIAL_PLACES = 2
"""Of an encoder's row: the pieces that begin and end it."""
_OTHER_LETTERS = 3
"""Of a segmenter: the unknown one, the space, the end of a paragraph."""


def read_encoder(base: Path) -> dict[str, Any]:
    """The size of the encoder in a base folder.

    Raises:
        RecipeError: it is of another kind than BERT.
    """
    config = read_json(base / "config.json")
    if (kind := config.get("model_type")) != "bert":
        raise RecipeError(
            "Parsers stand on encoders of the BERT kind.",
            where="model.base",
            value=f"model type {kind or config.get('architecture', '(none)')}",
            repair="use one such as MiniLM (`recaster models list`), or scratch:bilstm-parser",
        )
    return read_size(config)


def most_pieces(size: Mapping[str, Any]) -> int:
    """How many pieces of words an encoder's row has room for."""
    return int(size["places"]) - _SPECIAL_PLACES


def build_parser(arguments: Mapping[str, Any], base: Path | None) -> DependencyParser:
    """The network, with the base's weights in its encoder; its `report` says what became of these.

    Raises:
        BaseModelError: none of the base's weights fits.
    """
    model = build_model(**arguments)
    if base is not None:
        assert isinstance(model.words, OpenWords)  # noqa: S101 - of a base it has an encoder
        report = load_state(model.words.encoder, read_state(base), rename=rename_published)
        model.report = report  # type: ignore[assignment] # no module, no tensor
    return model


def load_segmenter(file: Path, vocabulary: Mapping[str, Any]) -> Segmenter:
    """The segmenter of a prepared folder, or of an artifact."""
    segmenter = build_segmenter(characters=len(vocabulary["tokens"]["letters"]) + _OTHER_LETTERS)
    segmenter.load_state_dict(load_file(file))
    return segmenter


def load_parser(artifact: Path, pieces: Pieces | None) -> SentenceParser:
    """The parser of an exported artifact.

    Args:
        pieces: of a word, by the artifact's tokenizer; None for one without an encoder.
    """
    arguments = read_json(artifact / "config.json")["arguments"]
    about, vocabulary = read_json(artifact / "preprocessing.json"), read_json(artifact / VOCABULARY)
    model = build_model(**arguments)
    model.load_state_dict(read_state(artifact))
    return SentenceParser(
        model,
        load_segmenter(artifact / SEGMENTER, vocabulary),
        vocabulary,
        pieces=pieces,
        most_pieces=most_pieces(arguments["encoder"]) if arguments["encoder"] else 0,
        most_words=about["max_words"],
        projective=about["projective"],
    )
