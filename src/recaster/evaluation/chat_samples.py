"""What a chat model writes for people to read: to held-out conversations, and to who asks for a secret."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recaster.core.errors import DataError
from recaster.core.files import read_json
from recaster.data.chat_shards import HeldOut, last_reply
from recaster.evaluation.chat_judge import Judge
from recaster.evaluation.chat_leaks import ask_for_secret, plant_secret, report_leaks
from recaster.evaluation.chat_report import measure_replies
from recaster.models.causal_models import open_causal_model
from recaster.models.replies import write_replies
from recaster.models.reply_policy import ReplyPolicy
from recaster.models.template_marks import list_marks

if TYPE_CHECKING:
    from recaster.recipe.schema import Recipe

_ROWS = 16
"""Replies that are written together."""
_CONTEXT_CHARACTERS = 600
"""Of the end of each conversation, for people to read."""


class ReplyWriter:
    """The likeliest replies of the model in a folder.

    Args:
        longest: tokens of a reply.
    """

    def __init__(self, folder: Path, held: HeldOut, *, longest: int) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._network = open_causal_model(folder)
        self._held, self._longest = held, longest

    def write(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """A reply to each of `prompts`, which are tokens."""
        replies = []
        for start in range(0, len(prompts), _ROWS):
            replies += write_replies(
                self._network,
                prompts[start : start + _ROWS],
                padding=self._held.padding,
                stop=self._held.stop,
                longest=self._longest,
            )
        return [self.read(reply).strip() for reply in replies]

    def answer(self, conversations: Sequence[Sequence[dict[str, str]]]) -> list[str]:
        """A reply to each conversation.

        Raises:
            jinja2.TemplateError: the template does not take it.
            DataError: the model's context does not hold it.
        """
        write_prompt = self.tokenizer.apply_chat_template
        prompts = [
            write_prompt(list(one), add_generation_prompt=True, return_dict=True)["input_ids"]
            for one in conversations
        ]
        limit = getattr(getattr(self._network, "config", None), "max_position_embeddings", None)
        needed = max(map(len, prompts)) + self._longest
        if limit and needed > limit:
            raise DataError(
                "The model's context is too short for a question with its reply.",
                where="data.chat",
                value=f"{needed} tokens, and there is room for {limit}",
                repair="give it a larger max_tokens",
            )
        return self.write(prompts)

    def read(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, special ones left out."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def continue_conversations(writer: ReplyWriter, held: HeldOut, count: int) -> dict[str, Any]:
    """Replies in place of the last ones of `count` held-out conversations, and how they read."""
    shard = held.shard
    rows = np.unique(np.linspace(0, len(shard.labels) - 1, count).astype(int)).tolist()
    prompts, references = zip(*(last_reply(shard, row) for row in rows), strict=True)
    texts = writer.write(prompts)
    table = [
        {
            "id": shard.ids[row],
            "row": row,
            "context": writer.read(prompt)[-_CONTEXT_CHARACTERS:],
            "wanted": writer.read(wanted).strip(),
            "reply": text,
        }
        for row, prompt, wanted, text in zip(rows, prompts, references, texts, strict=True)
    ]
    return {"replies": table, "reply_quality": measure_replies(texts)}


def probe_leaks(writer: ReplyWriter, recipe: Recipe) -> dict[str, Any]:
    """Ask for a planted secret, without the recipe's policy and with it; `measured` are metrics.

    A template without a system message cannot tell a secret, nor can a short context hold it: then nothing is
    measured, and the table says so.
    """
    from jinja2 import TemplateError

    secret = plant_secret(recipe.evaluate.seed)
    questions = ask_for_secret(secret)
    try:
        replies = writer.answer(questions)
    except TemplateError as error:
        return {"leaks": {"not_measured": f"the chat template takes no system message: {error}"}}
    except DataError as error:
        return {"leaks": {"not_measured": f"{error.what} {error.value}"}}
    filtered = None
    if recipe.policy:
        policy = ReplyPolicy(recipe.policy.model_dump(), list_marks(writer.tokenizer))
        filtered = [
            _filter(writer, policy, asked, reply) for asked, reply in zip(questions, replies, strict=True)
        ]
    metrics, table = report_leaks(
        questions, secret, unfiltered=replies, filtered=filtered, confidence=recipe.evaluate.confidence
    )
    return {"measured": metrics, "leaks": table}


def _filter(
    writer: ReplyWriter, policy: ReplyPolicy, asked: list[dict[str, str]], reply: str
) -> tuple[str, list[str]]:
    """What may be read, and the rules that changed it; the reply is written anew where the question is."""

    def write(read: list[dict[str, str]]) -> Generator[str, None, None]:
        yield reply if read == asked else writer.answer([read])[0]

    answer = policy.answer(asked, write)
    return "".join(answer).strip(), answer.filtered


def judge_replies(folder: Path, replies: list[dict[str, Any]], prepared: Path, split: str) -> Judge:
    """Give each row of `replies` a `score` by the judge in `folder`; return the judge.

    Args:
        replies: as `continue_conversations` gives them.
    """
    texts = read_json(prepared / f"{split}.texts.json")
    contexts = [texts[row["row"]][0][: texts[row["row"]][1][-1][0]] for row in replies]
    judge = Judge(folder, contexts, [row["wanted"] for row in replies])
    for row, score in zip(replies, judge.score([row["reply"] for row in replies]), strict=True):
        row["score"] = score
    return judge
