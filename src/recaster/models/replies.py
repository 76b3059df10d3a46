"""Replies of a causal language model, token after token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


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
