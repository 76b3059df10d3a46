"""Sentences with their trees in CoNLL-U, read and written without loss.

# sent_id = weblog-0001
# text = I don't know.
1       I      I     PRON   PRP  Case=Nom     4   nsubj    _   _
2-3     don't  _     _      _    _            _   _        _   _                   a token of two words
2       do     do    AUX    VBP  Mood=Ind     4   aux      _   _
3       n't    not   PART   RB   _            4   advmod   _   _
4       know   know  VERB   VB   _            0   root     _   SpaceAfter=No
5       .      .     PUNCT  .    _            4   punct    _   _

The format: https://universaldependencies.org/format.html. This file imports only the standard library: a
copy of it travels with every exported parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

COLUMNS = 10
_NUMBER = re.compile(r"[1-9][0-9]*")
_RANGE = re.compile(r"([1-9][0-9]*)-([1-9][0-9]*)")
_EMPTY = re.compile(r"(0|[1-9][0-9]*)\.[1-9][0-9]*")
_GLUED = "SpaceAfter=No"
NOTHING = "_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A syntactic word: a node of the tree."""

    form: str
    lemma: str = NOTHING
    upos: str = NOTHING
    xpos: str = NOTHING
    feats: str = NOTHING
    head: int | None = None
    """The number of the word that it depends on, from 1; 0 of the root; None where it is not told."""
    deprel: str = NOTHING
    deps: str = NOTHING
    """The enhanced graph, as it stands in the file."""
    misc: str = NOTHING

    @property
    def glued(self) -> bool:
        """Whether no space follows."""
        return _GLUED in self.misc.split("|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A token of several words, as it is written."""

    first: int
    """The number of its first word, from 1."""
    last: int
    form: str
    rest: tuple[str, ...] = (NOTHING,) * 8
    """The other columns, MISC the last of them."""

    @property
    def glued(self) -> bool:
        """Whether no space follows."""
        return _GLUED in self.rest[-1].split("|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """What stands between two blank lines."""

    words: tuple[Word, ...]
    spans: tuple[Span, ...] = ()
    comments: tuple[str, ...] = ()
    """Lines that begin with `#`, as they are."""
    empty_nodes: tuple[tuple[int, str], ...] = ()
    """Words that are only in the enhanced graph: after which word, and the whole line."""

    def comment(self, key: str) -> str | None:
        """The value of `# key = value`; None where there is none."""
        found = (line.partition("=") for line in self.comments)
        return next((value.strip() for name, _, value in found if name.strip("# \t") == key), None)

    def tokens(self) -> list[Word | Span]:
        """What is written, in its order: words, and spans in place of theirs."""
        starts = {span.first: span for span in self.spans}
        found: list[Word | Span] = []
        number = 1
        while number <= len(self.words):
            span = starts.get(number)
            found.append(span or self.words[number - 1])
            number = span.last + 1 if span else number + 1
        return found

    def text(self) -> str:
        """The sentence as it is written, without a space at its end."""
        pieces = (token.form + ("" if token.glued else " ") for token in self.tokens())
        return "".join(pieces).rstrip(" ")

    def with_text(self) -> Sentence:
        """It, with a comment that says its text."""
        if self.comment("text") is not None:
            return self
        return replace(self, comments=(*self.comments, f"# text = {' '.join(self.text().split())}"))


def is_conllu(text: str) -> bool:
    """Whether some line has the format's columns, as no prose does."""
    return any(line.count("\t") == COLUMNS - 1 and line[:1].isdigit() for line in text.splitlines())


def split_blocks(text: str) -> list[str]:
    """The sentences of a file's text, each still in its lines."""
    blocks: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            blocks[-1].append(line.rstrip("\r"))
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


def parse_sentence(block: str) -> Sentence:
    """The sentence of a block's lines.

    Raises:
        ValueError: a line is not of the format; the message says which, from 1, and why.
    """
    words: list[Word] = []
    spans: list[Span] = []
    comments: list[str] = []
    empty_nodes: list[tuple[int, str]] = []
    for number, line in enumerate(block.split("\n"), start=1):
        if line.startswith("#"):
            comments.append(line)
            continue
        cells = line.split("\t")
        if len(cells) != COLUMNS:
            raise ValueError(f"line {number} of the sentence has {len(cells)} columns, wanted {COLUMNS}")
        if not cells[1]:
            raise ValueError(f"line {number} of the sentence has no form")
        if _NUMBER.fullmatch(cells[0]):
            words.append(_read_word(cells, wanted=len(words) + 1, line=number))
        elif found := _RANGE.fullmatch(cells[0]):
            spans.append(Span(first=int(found[1]), last=int(found[2]), form=cells[1], rest=tuple(cells[2:])))
        elif _EMPTY.fullmatch(cells[0]):
            empty_nodes.append((len(words), line))
        else:
            raise ValueError(f"line {number} of the sentence has the id {cells[0]!r}")
    if not words:
        raise ValueError("the sentence has no words")
    _check_spans(spans, len(words))
    return Sentence(
        words=tuple(words), spans=tuple(spans), comments=tuple(comments), empty_nodes=tuple(empty_nodes)
    )


def _read_word(cells: Sequence[str], *, wanted: int, line: int) -> Word:
    number, form, lemma, upos, xpos, feats, head, deprel, deps, misc = cells
    if int(number) != wanted:
        raise ValueError(f"line {line} of the sentence is word {number}, wanted {wanted}")
    if head != NOTHING and not head.isdecimal():
        raise ValueError(f"line {line} of the sentence has the head {head!r}, wanted a number")
    return Word(
        form=form,
        lemma=lemma,
        upos=upos,
        xpos=xpos,
        feats=feats,
        head=None if head == NOTHING else int(head),
        deprel=deprel,
        deps=deps,
        misc=misc,
    )


def _check_spans(spans: Sequence[Span], words: int) -> None:
    end = 0
    for span in spans:
        if not end < span.first < span.last <= words:
            raise ValueError(f"the token {span.first}-{span.last} {span.form!r} does not fit the words")
        end = span.last


def write_sentence(sentence: Sentence) -> str:
    """The lines of a sentence, without the blank one after it."""
    starts = {span.first: span for span in sentence.spans}
    after: dict[int, list[str]] = {}
    for place, line in sentence.empty_nodes:
        after.setdefault(place, []).append(line)
    lines = [*sentence.comments, *after.get(0, ())]
    for number, word in enumerate(sentence.words, start=1):
        if span := starts.get(number):
            lines.append("\t".join([f"{span.first}-{span.last}", span.form, *span.rest]))
        head = NOTHING if word.head is None else str(word.head)
        cells = [str(number), word.form, word.lemma, word.upos, word.xpos, word.feats, head]
        lines.append("\t".join([*cells, word.deprel, word.deps, word.misc]))
        lines += after.get(number, ())
    return "\n".join(lines)


def write_sentences(sentences: Iterable[Sentence]) -> str:
    """A file's text."""
    return "".join(write_sentence(sentence) + "\n\n" for sentence in sentences)


def join_text(sentences: Sequence[Sentence]) -> str:
    """The running text of sentences that follow each other; paragraphs are apart by an empty line."""
    pieces: list[str] = []
    for number, sentence in enumerate(sentences):
        begins = any(re.match(r"#\s*new(doc|par)\b", line) for line in sentence.comments)
        if number and begins:
            pieces.append("\n\n")
        elif number and not sentences[number - 1].tokens()[-1].glued:
            pieces.append(" ")
        pieces.append(sentence.text())
    return "".join(pieces)


def find_cycle(heads: Sequence[int]) -> list[int]:
    """Words, from 1, that depend on each other in a circle; none in a tree.

    Args:
        heads: of each word, all within the sentence.
    """
    reached = [0] * (len(heads) + 1)  # 1: on the present way, 2: leads to the root
    reached[0] = 2
    for start in range(1, len(heads) + 1):
        way, word = [], start
        while not reached[word]:
            reached[word] = 1
            way.append(word)
            word = heads[word - 1]
        if reached[word] == 1:
            return way[way.index(word) :]
        for passed in way:
            reached[passed] = 2
    return []


def is_projective(heads: Sequence[int]) -> bool:
    """Whether no two arcs of a tree cross, the root's from before the first word among them."""
    arcs = [(min(head, word), max(head, word)) for word, head in enumerate(heads, start=1)]
    return not any(one[0] < other[0] < one[1] < other[1] for one in arcs for other in arcs)
