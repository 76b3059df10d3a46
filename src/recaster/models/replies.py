"""Replies of a causal language model, token after token."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recaster.core.errors import DataError
from recaster.core.files import read_json
from recaster.models.causal_models import open_causal_model
from recaster.models.reply_policy import Answer, ReplyPolicy
from recaster.models.template_marks import list_marks
from recaster.models.turn_order import check_order


class ChatVoice:
    """The model of an exported folder in conversation."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        told = read_json(folder / "preprocessing.json")
        self._longest: int = told["max_reply_tokens"]
        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._network: Any = open_causal_model(folder)
        # A recurrent network has no configuration of transformers', and no limit.
        limit = getattr(getattr(self._network, "config", None), "max_position_embeddings", None)
        # At least half of the context is the conversation's, however long replies may be.
        self._room = limit - min(self._longest, limit // 2) if limit else None
        policy = told.get("policy")
        self._policy = ReplyPolicy(policy, list_marks(self._tokenizer)) if policy else None

    def reply(self, messages: Sequence[Mapping[str, str]], *, temperature: float) -> Answer:
        """The answer to a conversation that ends with the user's message, in pieces as they are written.

        What the model's context does not hold is left out from the beginning, the system's message aside.
        Where the model has a policy, it says what is read and written; see `reply_policy`.

        Args:
            temperature: 0 for the likeliest reply; else the logits are divided by it and tokens drawn.

        Raises:
            DataError: roles are out of order, or the last message alone is more than the context holds.
        """
        _check_roles(messages)
        write = partial(self._speak, temperature=temperature)
        return self._policy.answer(messages, write) if self._policy else Answer(write(list(messages)), [])

    def _speak(
        self, messages: Sequence[Mapping[str, str]], *, temperature: float
    ) -> Generator[str, None, None]:
        from transformers import TextIteratorStreamer

        prompt, stopped = self._fit(list(messages)), threading.Event()
        pieces = TextIteratorStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        with ThreadPoolExecutor(1, thread_name_prefix="reply") as writer:
            written = writer.submit(self._write, prompt, pieces, temperature, stopped)
            try:
                yield from pieces
            finally:
                stopped.set()  # whoever does not read on must not wait for the rest
            written.result()

    @torch.no_grad()
    def _write(self, prompt: Tensor, pieces: Any, temperature: float, stopped: threading.Event) -> None:
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        try:
            self._network.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                streamer=pieces,
                max_new_tokens=self._longest,
                stopping_criteria=[lambda ids, _, **__: torch.full((len(ids),), stopped.is_set())],
                **sampling,
            )
        finally:
            pieces.end()  # else an error would leave the reader waiting

    def _fit(self, messages: list[Mapping[str, str]]) -> Tensor:
        """The prompt's tokens `(1, tokens)`; the earliest turns are left out until it fits."""
        while True:
            told = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            prompt: Tensor = told["input_ids"]
            first = 1 if messages[0]["role"] == "system" else 0
            if self._room is None or prompt.shape[1] <= self._room:
                return prompt
            if len(messages) - first < 3:
                raise DataError(
                    "The message is longer than the model's context.",
                    where="the last message",
                    value=f"{prompt.shape[1]} tokens with what is around it; there is room for {self._room}",
                    repair="shorten it, or say it in several messages",
                )
            del messages[first : first + 2]


def _check_roles(messages: Sequence[Mapping[str, str]]) -> None:
    problem = check_order(messages)
    if not problem and (not messages or messages[-1]["role"] != "user"):
        problem = "no user's message at the end"
    if problem:
        raise DataError(
            "A conversation cannot be answered.",
            where="its messages",
            value=problem,
            repair="let it have roles system (if any), user, assistant, user … in turn",
        )


@torch.no_grad()
def write_replies(
    network: nn.Module, prompts: Sequence[Sequence[int]], *, padding: int, stop: Sequence[int], longest: int
) -> list[list[int]]:
    """The likeliest reply to each of `prompts`, at most `longest` tokens, without the token that ends it.

    Args:
        stop: tokens that end a reply.
    """
    model: Any = network
    width = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[padding] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    device = next(network.parameters()).device
    written = model.generate(
        input_ids=tokens.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=longest,
        do_sample=False,
        eos_token_id=list(stop) or None,
        pad_token_id=padding,
    )
    return [_until(reply, stop) for reply in written[:, width:].tolist()]


def _until(reply: list[int], stop: Sequence[int]) -> list[int]:
    ends = [place for place, token in enumerate(reply) if token in stop]
    return reply[: ends[0]] if ends else reply
