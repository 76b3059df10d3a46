"""A parser as it is used: raw text, or sentences of words, to trees in CoNLL-U.

"I don't know."                          →   # text = I don't know.
                                             1    I      I     PRON  PRP  …   4   nsubj   _   _
                                             2-3  don't  _     …

This file and what it shares import only torch: they travel with every exported parser as `modeling.py`.

    parser = assemble(config["arguments"], vocabulary, preprocessing)     JSON of the folder
    parser.model.load_state_dict(…), parser.segmenter.load_state_dict(…)
    print(parser.parse("I don't know."))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from recaster.models.conllu import (
    Sentence,
    Word,
    is_conllu,
    parse_sentence,
    split_blocks,
    write_sentences,
)
from recaster.models.dependency_parser import DependencyParser, build_model
from recaster.models.parser_columns import (
    SPECIAL_PIECES,
    ColumnDecoder,
    Pieces,
    WordEncoder,
    stack_rows,
)
from recaster.models.segmenter import Segmenter, TextSplitter, build_segmenter

_BATCH_WORDS = 1500
"""Of sentences of like length that are parsed together."""


class SentenceParser:
    """Networks, vocabulary and decoding together."""

    def __init__(
        self,
        model: DependencyParser,
        segmenter: Segmenter,
        vocabulary: Mapping[str, Any],
        *,
        pieces: Pieces | None,
        most_pieces: int,
        most_words: int,
        projective: bool,
    ) -> None:
        self.model = model.eval()
        self._encoder = WordEncoder(vocabulary, pieces, most_pieces=most_pieces)
        self._decoder = ColumnDecoder(vocabulary, projective=projective)
        self.segmenter = segmenter.eval()
        self._splitter = TextSplitter(segmenter, vocabulary["tokens"], most_words=most_words)
        self._most_words = most_words

    def parse(self, text: str) -> str:
        """Trees in CoNLL-U of raw text, or of sentences in CoNLL-U, whose own tags and trees are not read.

        Raises:
            ValueError: a line that has the columns of CoNLL-U is not of that format, or a sentence has more
                words than the model takes.
        """
        return write_sentences(self.parse_sentences(self.read(text)))

    def read(self, text: str) -> list[Sentence]:
        """The sentences of raw text or of CoNLL-U, not parsed."""
        if is_conllu(text):
            return [parse_sentence(block) for block in split_blocks(text)]
        return self._splitter.split(text)

    @torch.no_grad()
    def parse_sentences(self, sentences: Sequence[Sentence]) -> list[Sentence]:
        """The sentences with their trees, tags and lemmas, in their order.

        Raises:
            ValueError: see `parse`.
        """
        order = sorted(range(len(sentences)), key=lambda place: len(sentences[place].words))
        if order and len(sentences[order[-1]].words) > self._most_words:
            words = len(sentences[order[-1]].words)
            raise ValueError(f"a sentence has {words} words, and the model takes {self._most_words}")
        found = list(sentences)
        together: list[int] = []
        for place in order:
            if together and (len(together) + 1) * len(sentences[place].words) > _BATCH_WORDS:
                self._parse_into(found, together)
                together = []
            together.append(place)
        if together:
            self._parse_into(found, together)
        return found

    def _parse_into(self, found: list[Sentence], places: Sequence[int]) -> None:
        rows = [self._encoder.encode([word.form for word in found[place].words]) for place in places]
        seen = self.model(stack_rows(rows, self._encoder.columns)).float()
        for place, one in zip(places, seen, strict=True):
            found[place] = self._decoder.fill_in(found[place], one)


def strip_annotation(sentence: Sentence) -> Sentence:
    """Its words and tokens alone, as a parser gets them."""
    words = tuple(Word(form=word.form, misc=word.misc) for word in sentence.words)
    return replace(sentence, words=words, empty_nodes=())


def assemble(
    arguments: Mapping[str, Any],
    vocabulary: Mapping[str, Any],
    about: Mapping[str, Any],
    *,
    pieces: Pieces | None = None,
) -> SentenceParser:
    """A parser whose networks, `model` and `segmenter`, still want their weights.

    Args:
        arguments: of `build_model`, from config.json.
        vocabulary: vocabulary.json.
        about: preprocessing.json.
        pieces: numbers of a word's pieces, without special ones, by tokenizer.json; where that is there.
    """
    encoder = arguments["encoder"]
    return SentenceParser(
        build_model(**arguments),
        build_segmenter(vocabulary["tokens"]["letters"]),
        vocabulary,
        pieces=pieces,
        most_pieces=encoder["places"] - SPECIAL_PIECES if encoder else 0,
        most_words=about["max_words"],
        projective=about["projective"],
    )
