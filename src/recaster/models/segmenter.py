"""Running text into sentences, tokens and words, by a small convolutional network over letters.

I don't.  It's ok.   →   I|don't|.‖It's|ok|.‖   →   I · do n't · .   /   It 's · ok · .

What a token of several words is made of is looked up: whole tokens and endings as the training split has
them. This file imports only torch: its text travels with every exported parser.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.conllu import Sentence, Span, Word

INSIDE, TOKEN_ENDS, SENTENCE_ENDS = range(3)
_NO_CLASS = -1
_WIDTH, _REACH, _DILATIONS = 48, 5, (1, 3, 9)
_CONTEXT = sum(_DILATIONS) * (_REACH // 2)
_CHUNK, _ROW, _BATCH = 4096, 256, 32
_LEAST_SHARE, _LEAST_TIMES = 0.5, 2
_PARAGRAPH = "\n"
_OTHERS = ("", " ", _PARAGRAPH)
"""Before the letters: an unknown one, a space, the end of a paragraph."""


class Segmenter(nn.Module):
    """Whether a token or a sentence ends at a letter."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(characters, _WIDTH // 2)
        sizes = [_WIDTH // 2, *[_WIDTH] * (len(_DILATIONS) - 1)]
        self.layers = nn.ModuleList(
            nn.Conv1d(size, _WIDTH, _REACH, padding=_REACH // 2 * step, dilation=step)
            for size, step in zip(sizes, _DILATIONS, strict=True)
        )
        self.decide = nn.Linear(_WIDTH, 3)

    def forward(self, letters: Tensor) -> Tensor:
        """Logits `(rows, letters, 3)` of letters' numbers `(rows, letters)`."""
        states = self.vectors(letters).transpose(1, 2)
        for number, layer in enumerate(self.layers):
            found = F.relu(layer(states))
            states = states + found if number else found
        logits: Tensor = self.decide(states.transpose(1, 2))
        return logits


def build_segmenter(letters: Sequence[str]) -> Segmenter:
    """The network for these letters, with fresh weights."""
    return Segmenter(len(letters) + len(_OTHERS))


def learn_tokens(sentences: Sequence[Sentence]) -> dict[str, Any]:
    """Letters that occur, and which tokens and endings of tokens are several words: plain JSON."""
    tokens = [token for sentence in sentences for token in sentence.tokens()]
    seen = Counter(token.form.lower() for token in tokens)
    splits: dict[str, Counter[tuple[str, ...]]] = {}
    endings: Counter[str] = Counter()
    for sentence in sentences:
        for span in sentence.spans:
            words = tuple(word.form.lower() for word in sentence.words[span.first - 1 : span.last])
            splits.setdefault(span.form.lower(), Counter())[words] += 1
            if "".join(words) == span.form.lower():
                endings[words[-1]] += 1
    whole = {
        form: list(found.most_common(1)[0][0])
        for form, found in sorted(splits.items())
        if found.total() > _LEAST_SHARE * seen[form]
    }
    return {
        "letters": sorted({letter for token in tokens for letter in token.form}),
        "whole": whole,
        "endings": [
            ending for ending in sorted(endings, key=len, reverse=True) if _holds(ending, endings, seen)
        ],
    }


def _holds(ending: str, endings: Counter[str], seen: Counter[str]) -> bool:
    """Whether most tokens that end so are several words, and not just a few."""
    having = sum(times for form, times in seen.items() if form.endswith(ending) and form != ending)
    return endings[ending] >= _LEAST_TIMES and endings[ending] > _LEAST_SHARE * having


def train_segmenter(
    sentences: Sequence[Sentence], letters: Sequence[str], *, epochs: int, seed: int
) -> Segmenter:
    """A segmenter of the sentences' running text; the same for the same seed and number of threads."""
    text, classes = label_letters(sentences)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_segmenter(letters)
        numbers, wanted = _number(text, letters), torch.tensor(classes)
        rows = _cut(numbers, fill=0), _cut(wanted, fill=_NO_CLASS)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        # Of little text smaller batches, or there would hardly be a step.
        batch = max(1, min(_BATCH, len(rows[0]) // 8))
        steps = epochs * -(-len(rows[0]) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps + 1)
        for _ in range(epochs):
            for chosen in torch.randperm(len(rows[0])).split(batch):
                logits = model(rows[0][chosen])
                loss = F.cross_entropy(
                    logits.flatten(0, 1), rows[1][chosen].flatten(), ignore_index=_NO_CLASS
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def label_letters(sentences: Sequence[Sentence]) -> tuple[str, list[int]]:
    """The running text, and what ends at each of its letters."""
    text: list[str] = []
    classes: list[int] = []
    for number, sentence in enumerate(sentences):
        tokens = sentence.tokens()
        begins = any(re.match(r"#\s*new(doc|par)\b", line) for line in sentence.comments)
        if number and begins and text[-1:] != [_PARAGRAPH]:
            # In place of the space, if there is one.
            if text[-1] == " ":
                text.pop()
                classes.pop()
            text.append(_PARAGRAPH)
            classes.append(_NO_CLASS)
        for place, token in enumerate(tokens):
            last = SENTENCE_ENDS if place == len(tokens) - 1 else TOKEN_ENDS
            for where, letter in enumerate(token.form):
                text.append(letter)
                ends = where == len(token.form) - 1
                classes.append(_NO_CLASS if letter.isspace() else last if ends else INSIDE)
            if not token.glued:
                text.append(" ")
                classes.append(_NO_CLASS)
    return "".join(text), classes


def _number(text: str, letters: Sequence[str]) -> Tensor:
    known = {letter: number for number, letter in enumerate((*_OTHERS, *letters))}
    return torch.tensor([known.get(letter, 0) for letter in text], dtype=torch.long)


def _cut(values: Tensor, *, fill: int) -> Tensor:
    return F.pad(values, (0, -len(values) % _ROW), value=fill).view(-1, _ROW)


class TextSplitter:
    """Raw text into sentences of words."""

    def __init__(self, model: Segmenter, learned: Mapping[str, Any], *, most_words: int) -> None:
        self._model, self._letters = model, learned["letters"]
        self._whole: Mapping[str, Sequence[str]] = learned["whole"]
        self._endings: Sequence[str] = learned["endings"]
        self._most_words = most_words

    def split(self, text: str) -> list[Sentence]:
        """The sentences of `text`, numbered, with their text and paragraphs in comments."""
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n[^\S\n]*\n", text)]
        paragraphs = [part for part in paragraphs if part]
        joined = _PARAGRAPH.join(paragraphs)
        classes = self._classify(joined)
        found: list[Sentence] = []
        start = 0
        for paragraph in paragraphs:
            own = classes[start : start + len(paragraph)]
            start += len(paragraph) + 1
            for number, tokens in enumerate(self._sentences(paragraph, own)):
                comments = ([] if number else ["# newpar"]) + [f"# sent_id = {len(found) + 1}"]
                found.append(self._build(tokens, comments))
        return found

    @torch.no_grad()
    def _classify(self, text: str) -> list[int]:
        """In chunks that overlap by all that the network sees, so that these change nothing."""
        numbers = _number(text, self._letters)
        classes: list[int] = []
        for start in range(0, len(numbers), _CHUNK):
            begin = max(0, start - _CONTEXT)
            logits = self._model(numbers[None, begin : start + _CHUNK + _CONTEXT])[0]
            classes += logits[start - begin : start - begin + _CHUNK].argmax(1).tolist()
        return classes

    def _sentences(self, text: str, classes: Sequence[int]) -> Iterator[list[tuple[str, bool]]]:
        """Tokens of each sentence, and whether a space follows."""
        tokens: list[tuple[str, bool]] = []
        first = words = 0
        for place, letter in enumerate(text):
            if letter == " ":
                first = place + 1
                continue
            spaced = text[place + 1 : place + 2] == " "
            last = place == len(text) - 1
            if classes[place] == INSIDE and not spaced and not last:
                continue
            tokens.append((text[first : place + 1], spaced or last))
            words += len(self._words(tokens[-1][0]))
            first = place + 1
            if classes[place] == SENTENCE_ENDS or last or words >= self._most_words:
                yield tokens
                tokens, words = [], 0

    def _words(self, token: str) -> list[str]:
        """The words of a token, itself alone for most."""
        lower = token.lower()
        if words := self._whole.get(lower):
            return _with_case(token, words)
        for ending in self._endings:
            if lower.endswith(ending) and len(lower) > len(ending) and len(lower) == len(token):
                return [token[: -len(ending)], token[-len(ending) :]]
        return [token]

    def _build(self, tokens: Sequence[tuple[str, bool]], comments: Sequence[str]) -> Sentence:
        words: list[Word] = []
        spans: list[Span] = []
        for form, spaced in tokens:
            misc = "_" if spaced else "SpaceAfter=No"
            parts = self._words(form)
            if len(parts) == 1:
                words.append(Word(form=form, misc=misc))
                continue
            first = len(words) + 1
            rest = (*["_"] * 7, misc)
            spans.append(Span(first=first, last=first + len(parts) - 1, form=form, rest=rest))
            words += [Word(form=part) for part in parts]
        sentence = Sentence(words=tuple(words), spans=tuple(spans), comments=tuple(comments))
        return sentence.with_text()


def _with_case(token: str, words: Sequence[str]) -> list[str]:
    """Words, known in small letters, as they stand in the token."""
    if "".join(words) != token.lower() or len(token) != len(token.lower()):
        begin = words[0].capitalize() if token[:1].isupper() else words[0]
        return [begin, *words[1:]]
    found, start = [], 0
    for word in words:
        found.append(token[start : start + len(word)])
        start += len(word)
    return found
