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

from recaster.core.files import read_json
from recaster.models import bert_bases
from recaster.models.bert_encoder import rename_published
from recaster.models.dependency_parser import DependencyParser, OpenWords, build_model
from recaster.models.loading import load_state, read_state
from recaster.models.parser_columns import SPECIAL_PIECES, Pieces
from recaster.models.sentence_parser import SentenceParser, assemble

SEGMENTER, VOCABULARY = "segmenter.safetensors", "vocabulary.json"


def read_encoder(base: Path) -> dict[str, Any]:
    """The size of the encoder in a base folder.

    Raises:
        RecipeError: it is of another kind than BERT.
    """
    return bert_bases.read_encoder(base, of="Parsers over an open model stand on encoders of the BERT kind.")


def most_pieces(size: Mapping[str, Any]) -> int:
    """How many pieces of words an encoder's row has room for."""
    return int(size["places"]) - SPECIAL_PIECES


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


def load_parser(artifact: Path, pieces: Pieces | None) -> SentenceParser:
    """The parser of an exported artifact.

    Args:
        pieces: of a word, by the artifact's tokenizer; None for one without an encoder.
    """
    arguments = read_json(artifact / "config.json")["arguments"]
    about, vocabulary = read_json(artifact / "preprocessing.json"), read_json(artifact / VOCABULARY)
    parser = assemble(arguments, vocabulary, about, pieces=pieces)
    parser.model.load_state_dict(read_state(artifact))
    parser.segmenter.load_state_dict(load_file(artifact / SEGMENTER))
    return parser
