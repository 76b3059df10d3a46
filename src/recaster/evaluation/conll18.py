"""How good a parse is by the rules of the CoNLL 2018 shared task, also where words were found by the system.

Words of both sides are aligned by the letters that they stand on; those of a token of several words by the
longest common subsequence of their forms. Relations count without their subtypes, features without those
that are not universal. CLAS counts content words alone.

Source: D. Zeman et al., "CoNLL 2018 shared task: multilingual parsing from raw text to Universal
Dependencies", CoNLL 2018; the rules are those of its published evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recaster.models.conllu import Sentence, Span, Word

CONTENT = frozenset(
    [
        "nsubj",
        "obj",
        "iobj",
        "csubj",
        "ccomp",
        "xcomp",
        "obl",
        "vocative",
        "expl",
        "dislocated",
        "advcl",
        "advmod",
        "discourse",
        "nmod",
        "appos",
        "nummod",
        "acl",
        "amod",
        "conj",
        "fixed",
        "flat",
        "compound",
        "list",
        "parataxis",
        "orphan",
        "goeswith",
        "reparandum",
        "root",
        "dep",
    ]
)
_UNIVERSAL = frozenset(
    [
        "PronType",
        "NumType",
        "Poss",
        "Reflex",
        "Foreign",
        "Abbr",
        "Gender",
        "Animacy",
        "Number",
        "Case",
        "Definite",
        "Degree",
        "VerbForm",
        "Mood",
        "Tense",
        "Aspect",
        "Voice",
        "Evident",
        "Polarity",
        "Person",
        "Polite",
    ]
)
Place = tuple[int, int]
"""First letter of all, and the one after the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What of one kind agrees."""

    gold: int
    system: int
    correct: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where there is nothing."""
        return 2 * self.correct / (self.gold + self.system) if self.gold + self.system else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Node:
    """A word with where it stands; each is itself alone."""

    word: Word
    place: Place
    of_several: bool
    """Whether its token has other words."""
    head: int
    """Place of its head among all words; -1 of the root."""
    number: int
    """Its own."""

    @property
    def relation(self) -> str:
        return self.word.deprel.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    letters: str
    sentences: list[Place]
    tokens: list[Place]
    nodes: list[_Node]


def score_trees(gold: Sequence[Sentence], system: Sequence[Sentence]) -> dict[str, Score]:
    """Tokens, Sentences, Words, UPOS, XPOS, UFeats, Lemmas, UAS, LAS and CLAS of a text.

    Raises:
        ValueError: the two have other letters, spaces aside: they are not of one text.
    """
    one, other = _lay_out(gold), _lay_out(system)
    if one.letters != other.letters:
        at = next(
            (place for place, (a, b) in enumerate(zip(one.letters, other.letters, strict=False)) if a != b),
            min(len(one.letters), len(other.letters)),
        )
        raise ValueError(
            f"the two are not of one text: after {at} letters one goes on with "
            f"{one.letters[at : at + 20]!r}, the other with {other.letters[at : at + 20]!r}"
        )
    pairs = _align(one.nodes, other.nodes)
    return {
        "Tokens": _score_places(one.tokens, other.tokens),
        "Sentences": _score_places(one.sentences, other.sentences),
        **_score_words(one.nodes, other.nodes, pairs),
    }


def _lay_out(sentences: Sequence[Sentence]) -> _Side:
    letters: list[str] = []
    places: list[Place] = []
    tokens: list[Place] = []
    nodes: list[_Node] = []
    start = 0
    for sentence in sentences:
        began, first = start, len(nodes)
        for token in sentence.tokens():
            text = "".join(token.form.split())
            letters.append(text)
            tokens.append((start, start + len(text)))
            start += len(text)
            several = isinstance(token, Span)
            own = sentence.words[token.first - 1 : token.last] if isinstance(token, Span) else (token,)
            for word in own:
                head = -1 if not word.head else first + word.head - 1
                nodes.append(
                    _Node(word=word, place=tokens[-1], of_several=several, head=head, number=len(nodes))
                )
        places.append((began, start))
    return _Side(letters="".join(letters), sentences=places, tokens=tokens, nodes=nodes)


def _score_places(gold: Sequence[Place], system: Sequence[Place]) -> Score:
    return Score(gold=len(gold), system=len(system), correct=len(set(gold) & set(system)))


def _align(gold: Sequence[_Node], system: Sequence[_Node]) -> list[tuple[_Node, _Node]]:
    pairs: list[tuple[_Node, _Node]] = []
    one = other = 0
    while one < len(gold) and other < len(system):
        mine, theirs = gold[one], system[other]
        if mine.of_several or theirs.of_several:
            begin_one, begin_other, one, other = _find_several(gold, system, one, other)
            pairs += _match_forms(gold[begin_one:one], system[begin_other:other])
        elif mine.place == theirs.place:
            pairs.append((mine, theirs))
            one, other = one + 1, other + 1
        elif mine.place[0] <= theirs.place[0]:
            one += 1
        else:
            other += 1
    return pairs


def _find_several(
    gold: Sequence[_Node], system: Sequence[_Node], one: int, other: int
) -> tuple[int, int, int, int]:
    """The words of both sides that stand on the letters of a token of several words, ends exclusive."""
    if gold[one].of_several:
        end = gold[one].place[1]
        if not system[other].of_several and system[other].place[0] < gold[one].place[0]:
            other += 1
    else:
        end = system[other].place[1]
        if gold[one].place[0] < system[other].place[0]:
            one += 1
    begin_one, begin_other = one, other
    while not (_is_beyond(gold, one, end) and _is_beyond(system, other, end)):
        mine_first = one < len(gold) and (
            other >= len(system) or gold[one].place[0] <= system[other].place[0]
        )
        taken = gold[one] if mine_first else system[other]
        if taken.of_several:
            end = max(end, taken.place[1])
        one, other = (one + 1, other) if mine_first else (one, other + 1)
    return begin_one, begin_other, one, other


def _is_beyond(nodes: Sequence[_Node], number: int, end: int) -> bool:
    if number >= len(nodes):
        return True
    node = nodes[number]
    return node.place[0] >= end if node.of_several else node.place[1] > end


def _match_forms(gold: Sequence[_Node], system: Sequence[_Node]) -> list[tuple[_Node, _Node]]:
    """A longest common subsequence, forms in small letters."""
    ones, others = ([node.word.form.lower() for node in side] for side in (gold, system))
    longest = [[0] * (len(others) + 1) for _ in range(len(ones) + 1)]
    for one in reversed(range(len(ones))):
        for other in reversed(range(len(others))):
            best = max(longest[one + 1][other], longest[one][other + 1])
            if ones[one] == others[other]:
                best = max(best, 1 + longest[one + 1][other + 1])
            longest[one][other] = best
    pairs, one, other = [], 0, 0
    while one < len(ones) and other < len(others):
        if ones[one] == others[other]:
            pairs.append((gold[one], system[other]))
            one, other = one + 1, other + 1
        elif longest[one][other] == longest[one + 1][other]:
            one += 1
        else:
            other += 1
    return pairs


def _score_words(
    gold: Sequence[_Node], system: Sequence[_Node], pairs: Sequence[tuple[_Node, _Node]]
) -> dict[str, Score]:
    partner = {theirs.number: mine.number for mine, theirs in pairs}

    def heads_agree(mine: _Node, theirs: _Node) -> bool:
        # A head of the system without a partner is no word of the gold side, and not its root either.
        return mine.head == (-1 if theirs.head < 0 else partner.get(theirs.head, -2))

    agreeing: dict[str, Callable[[_Node, _Node], bool]] = {
        "Words": lambda mine, theirs: True,  # noqa: ARG005
        "UPOS": lambda mine, theirs: mine.word.upos == theirs.word.upos,
        "XPOS": lambda mine, theirs: mine.word.xpos == theirs.word.xpos,
        "UFeats": lambda mine, theirs: universal_features(mine.word) == universal_features(theirs.word),
        "Lemmas": lambda mine, theirs: mine.word.lemma in ("_", theirs.word.lemma),
        "UAS": heads_agree,
        "LAS": lambda mine, theirs: heads_agree(mine, theirs) and mine.relation == theirs.relation,
    }
    scores = {
        name: Score(
            gold=len(gold), system=len(system), correct=sum(agree(mine, theirs) for mine, theirs in pairs)
        )
        for name, agree in agreeing.items()
    }
    scores["CLAS"] = Score(
        gold=sum(node.relation in CONTENT for node in gold),
        system=sum(node.relation in CONTENT for node in system),
        correct=sum(mine.relation in CONTENT and agreeing["LAS"](mine, theirs) for mine, theirs in pairs),
    )
    return scores


def universal_features(word: Word) -> frozenset[str]:
    """A word's features, without those that only its language has."""
    return frozenset(one for one in word.feats.split("|") if one.partition("=")[0] in _UNIVERSAL)
