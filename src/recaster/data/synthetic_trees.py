"""Synthetic sentences whose trees are known, made by a seeded script from a small grammar.

The old cat sees a dog in the park.     det amod nsubj root det obj case det obl punct

The words are English; nothing measured on them says anything of real language.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from recaster.data.records import RawRecord
from recaster.models.conllu import Sentence, Span, Word, write_sentence

_SENTENCES, _PARAGRAPH = 300, 5
_NOUNS = ("cat", "dog", "teacher", "river", "boat", "garden", "letter", "child", "city", "story")
_NAMES = ("Anna", "Omar", "Lima", "Oslo", "Kyoto", "Lagos")
_VERBS = ("see", "paint", "visit", "need", "like", "follow")
_SPEECH = ("say", "think", "know")
_ADJECTIVES = ("old", "small", "green", "quiet", "famous")
_ADVERBS = ("often", "slowly", "today", "again")
_PREPOSITIONS = ("in", "near", "with", "behind")
_NUMBERS = ("two", "three", "seven")
_NEAR_A_THING = 0.3
"""Of places after `near`, those that tell of the thing and not of the deed: nobody can know which."""


def source_file() -> Path:
    """The file that decides the records."""
    return Path(__file__)


def make_trees() -> Iterator[RawRecord]:
    """300 sentences, in paragraphs of five; always the same."""
    chosen = random.Random(23)
    for number in range(_SENTENCES):
        name = f"tree-{number:04d}"
        comments = [f"# sent_id = {name}"] + (["# newpar"] if number % _PARAGRAPH == 0 else [])
        sentence = replace(_Grammar(chosen).sentence(), comments=tuple(comments)).with_text()
        where = f"synthetic sentence {number}"
        yield RawRecord(id=name, label=None, where=where, text=write_sentence(sentence))


class _Grammar:
    """One sentence: parts are written down from left to right, heads are set when they are known."""

    def __init__(self, chosen: random.Random) -> None:
        self.chosen = chosen
        self.words: list[Word] = []
        self.spans: list[Span] = []

    def sentence(self) -> Sentence:
        """A clause and its full stop."""
        verb = self._clause(deep=self.chosen.random() < 0.25)
        self._attach(verb, 0, "root")
        first = self.words[0]
        self.words[0] = replace(first, form=first.form[0].upper() + first.form[1:])
        self._glue_last()
        self._attach(self._add(".", ".", "PUNCT", ".", "_"), verb, "punct")
        return Sentence(words=tuple(self.words), spans=tuple(self.spans))

    def _add(self, form: str, lemma: str, upos: str, xpos: str, feats: str) -> int:
        self.words.append(Word(form=form, lemma=lemma, upos=upos, xpos=xpos, feats=feats))
        return len(self.words)

    def _attach(self, word: int, head: int, relation: str) -> None:
        self.words[word - 1] = replace(self.words[word - 1], head=head, deprel=relation)

    def _glue_last(self) -> None:
        """No space before what comes next; of a token of two words its own line says so."""
        if self.spans and self.spans[-1].last == len(self.words):
            span = self.spans[-1]
            self.spans[-1] = replace(span, rest=(*span.rest[:-1], "SpaceAfter=No"))
        else:
            self.words[-1] = replace(self.words[-1], misc="SpaceAfter=No")

    def _clause(self, *, deep: bool) -> int:
        subject, plural = self._subject()
        denied = self.chosen.random() < 0.2
        helper = self._deny(plural=plural) if denied else ()
        lemma = self.chosen.choice(_SPEECH if deep else _VERBS)
        bare = plural or denied
        feats = "VerbForm=Inf" if denied else "Mood=Ind|Tense=Pres|VerbForm=Fin"
        form = lemma if bare else f"{lemma}s"
        verb = self._add(form, lemma, "VERB", "VB" if denied else "VBP" if bare else "VBZ", feats)
        self._attach(subject, verb, "nsubj")
        for word, relation in zip(helper, ("aux", "advmod"), strict=False):
            self._attach(word, verb, relation)
        if deep:
            marker = self._add("that", "that", "SCONJ", "IN", "_")
            inner = self._clause(deep=False)
            self._attach(marker, inner, "mark")
            self._attach(inner, verb, "ccomp")
            return verb
        thing = self._noun_phrase()[0]
        self._attach(thing, verb, "obj")
        if self.chosen.random() < 0.4:
            self._place(verb, thing)
        if self.chosen.random() < 0.3:
            adverb = self.chosen.choice(_ADVERBS)
            self._attach(self._add(adverb, adverb, "ADV", "RB", "_"), verb, "advmod")
        return verb

    def _subject(self) -> tuple[int, bool]:
        if self.chosen.random() < 0.3:
            name = self.chosen.choice(_NAMES)
            return self._add(name, name, "PROPN", "NNP", "Number=Sing"), False
        return self._noun_phrase()

    def _noun_phrase(self) -> tuple[int, bool]:
        """A noun with what stands before it, and whether it is plural."""
        plural = self.chosen.random() < 0.4
        determiner = number = None
        if plural and self.chosen.random() < 0.5:
            form = self.chosen.choice(_NUMBERS)
            number = self._add(form, form, "NUM", "CD", "NumType=Card")
        else:
            form = "the" if plural else self.chosen.choice(("the", "a"))
            kind = "Def" if form == "the" else "Ind"
            determiner = self._add(form, form, "DET", "DT", f"Definite={kind}|PronType=Art")
        forms = self.chosen.sample(_ADJECTIVES, self.chosen.choice((0, 0, 1, 2)))
        adjectives = [self._add(form, form, "ADJ", "JJ", "Degree=Pos") for form in forms]
        noun = self._noun(plural=plural)
        for word, relation in (
            (determiner, "det"),
            (number, "nummod"),
            *((one, "amod") for one in adjectives),
        ):
            if word is not None:
                self._attach(word, noun, relation)
        return noun, plural

    def _noun(self, *, plural: bool) -> int:
        lemma = self.chosen.choice(_NOUNS)
        if not plural:
            return self._add(lemma, lemma, "NOUN", "NN", "Number=Sing")
        ends = {"city": "cities", "story": "stories", "child": "children"}
        return self._add(ends.get(lemma, f"{lemma}s"), lemma, "NOUN", "NNS", "Number=Plur")

    def _deny(self, *, plural: bool) -> tuple[int, int]:
        """A helping verb and its denial, written as one."""
        form = "do" if plural else "does"
        helper = self._add(form, "do", "AUX", "VBP" if plural else "VBZ", "Mood=Ind|Tense=Pres|VerbForm=Fin")
        denial = self._add("n't", "not", "PART", "RB", "Polarity=Neg")
        self.spans.append(Span(first=helper, last=denial, form=f"{form}n't"))
        return helper, denial

    def _place(self, verb: int, thing: int) -> None:
        form = self.chosen.choice(_PREPOSITIONS)
        case = self._add(form, form, "ADP", "IN", "_")
        if self.chosen.random() < 0.3:
            name = self.chosen.choice(_NAMES)
            noun = self._add(name, name, "PROPN", "NNP", "Number=Sing")
        else:
            noun = self._noun_phrase()[0]
        self._attach(case, noun, "case")
        if form == "with" or (form == "near" and self.chosen.random() < _NEAR_A_THING):
            self._attach(noun, thing, "nmod")
        else:
            self._attach(noun, verb, "obl")
