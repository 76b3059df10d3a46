r"""A conversation as its base model's chat template writes it, and which of its tokens are the assistant's.

<|im_start|>user\nwho is it<|im_end|>\n<|im_start|>assistant\nIt is me.<|im_end|>\n
                                                             ^^^^^^^^^^^^^^^^^^^ learned
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from recaster.core.errors import RecipeError
from recaster.data.chat_sources import Message
from recaster.data.tokenizers import open_tokenizer

_CHARACTERS_PER_TOKEN = 4
"""About: a shorter text is not tokenized to see whether it is long enough already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChat:
    """One conversation."""

    tokens: list[int]
    learned: list[bool]
    """Of each token, whether it is the assistant's own, or ends its turn."""
    truncated: bool
    """Something was left out at the end."""
    text: str
    """What the tokens stand for."""
    parts: list[tuple[int, int]]
    """From where to where in it each reply stands."""


class ChatTokenizer:
    """Tokenizer and chat template of a model's folder.

    Raises:
        RecipeError: the folder has no tokenizer, or no template.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer, processors
        from transformers import AutoTokenizer

        inner = open_tokenizer(folder)
        self.padding, self.size = inner.padding, inner.size
        self._folder = folder
        self._template: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if not self._template.chat_template:
            raise RecipeError(
                "The base model has no chat template.",
                where="model.base",
                value=str(folder),
                repair="choose a model tuned for chat, or add its chat_template.jinja",
            )
        self._inner: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._inner.no_padding()
        self._inner.no_truncation()
        # The template writes all special tokens itself; and a token's place must not be without its spaces.
        self._inner.post_processor = processors.ByteLevel(trim_offsets=False)

    def encode(self, messages: Sequence[Message], longest: int) -> EncodedChat:
        """At most `longest` tokens of the conversation up to its last reply.

        Raises:
            RecipeError: the template does not take these messages, or changes earlier turns with later ones.
        """
        text, parts, whole = self._render(messages, longest)
        return self._cut(text, parts, longest, whole=whole)

    def encode_reply(self, messages: Sequence[Message], longest: int) -> EncodedChat:
        """As `encode`, of messages that end with a reply, but that one alone is learned.

        Raises:
            RecipeError: see `encode`.
        """
        prompt, written = self._write(messages[:-1], ask=True), self._write(messages, ask=False)
        self._check_order(prompt, written)
        return self._cut(written, [_trim(prompt, written, messages[-1]["content"])], longest)

    def mark(self, text: str, parts: Sequence[tuple[int, int]]) -> tuple[list[int], list[bool]]:
        """The tokens of a text that the template has written, and whether each begins within `parts`."""
        encoded = self._inner.encode(text)
        return encoded.ids, _mark(encoded.offsets, parts)

    @property
    def template(self) -> str:
        """The chat template's source."""
        return str(self._template.chat_template)

    @property
    def file(self) -> Path:
        """The tokenizer's own file."""
        return self._folder / "tokenizer.json"

    def closing_tokens(self) -> list[int]:
        """The tokens that end a reply, and nothing else: generation stops at them."""
        chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        encoded = self.encode(chat, 1 << 20)
        last = max(place for place, own in enumerate(encoded.learned) if own)
        special = {
            number for number, token in self._inner.get_added_tokens_decoder().items() if token.special
        }
        return [encoded.tokens[last]] if encoded.tokens[last] in special else []

    def dividing_token(self) -> int:
        """A special token that no conversation has, to stand between two.

        Raises:
            RecipeError: there is none.
        """
        chat = [
            {"role": role, "content": "a"} for role in ("system", "user", "assistant", "user", "assistant")
        ]
        used = set(self._inner.encode(self._write(chat, ask=False)).ids)
        special = [
            number
            for number, token in sorted(self._inner.get_added_tokens_decoder().items())
            if token.special and number not in used
        ]
        if not special:
            raise RecipeError(
                "The tokenizer has no special token to divide conversations by.",
                where="data.chat.packed",
                value=str(self._folder),
                repair="set it to false",
            )
        return self.padding if self.padding in special else int(special[0])

    def _render(self, messages: Sequence[Message], longest: int) -> tuple[str, list[tuple[int, int]], bool]:
        """The text up to the last reply, or as far as tokens are wanted; each reply's place; if it is all."""
        replies = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        text = ""
        parts: list[tuple[int, int]] = []
        for place in replies:
            if len(text) > _CHARACTERS_PER_TOKEN * longest and len(self._inner.encode(text).ids) > longest:
                return text, parts, False
            prompt = self._write(messages[:place], ask=True)
            written = self._write(messages[: place + 1], ask=False)
            self._check_order(text, prompt, written)
            parts.append(_trim(prompt, written, messages[place]["content"]))
            text = written
        return text, parts, True

    def _cut(
        self, text: str, parts: Sequence[tuple[int, int]], longest: int, *, whole: bool = True
    ) -> EncodedChat:
        """At most `longest` tokens of a text with the replies that are learned of it."""
        encoded = self._inner.encode(text)
        end = encoded.offsets[:longest][-1][1] if encoded.ids else 0
        return EncodedChat(
            tokens=encoded.ids[:longest],
            learned=_mark(encoded.offsets[:longest], parts),
            truncated=not whole or len(encoded.ids) > longest,
            text=text[:end],
            parts=[(start, min(stop, end)) for start, stop in parts if start < end],
        )

    def _check_order(self, *texts: str) -> None:
        """Each must begin with the one before."""
        for shorter, longer in pairwise(texts):
            if not longer.startswith(shorter):
                raise RecipeError(
                    "The chat template changes earlier turns when there are later ones.",
                    where=str(self._folder),
                    value=longer[-80:],
                    repair="choose another base, or give it a template that writes turn after turn",
                )

    def _write(self, messages: Sequence[Message], *, ask: bool) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self._template.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=ask
            )
        except TemplateError as error:
            raise RecipeError(
                "The chat template does not take this conversation.",
                where=str(self._folder),
                value=f"{error}: {messages[0]}",
                repair="bring the data to the roles that the template has, or choose another base",
            ) from error
        return text


def _trim(prompt: str, written: str, content: str) -> tuple[int, int]:
    """From where to where a reply with its ending stands; line ends after the ending are the template's."""
    reply = written[len(prompt) :]
    closed = reply.rstrip()
    # Where nothing but white space ends a turn, it is the end that must be learned.
    end = len(reply) if closed == content.rstrip() else len(closed)
    return len(prompt), len(prompt) + end


def _mark(offsets: Sequence[tuple[int, int]], parts: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each token begins within one of the `parts`, which are in order."""
    marks, number = [], 0
    for start, end in offsets:
        while number < len(parts) and start >= parts[number][1]:
            number += 1
        marks.append(number < len(parts) and parts[number][0] <= start < end)
    return marks
