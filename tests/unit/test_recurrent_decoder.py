"""The recurrent language model: what it foresees, and that writing with its state is reading all again."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from recaster.models.recurrent_decoder import RecurrentDecoder, build_model

_PROMPTS = [[5, 6, 7, 8], [9, 4]]


@pytest.fixture(params=["lstm", "gru"])
def network(request: pytest.FixtureRequest) -> RecurrentDecoder:
    torch.manual_seed(2)
    network = build_model(
        network=request.param, vocabulary=30, width=16, depth=2, dropout=0.3, padding=0, end=2
    ).eval()
    with torch.no_grad():  # fresh logits are so much alike that rounding could decide
        network.bias.add_(torch.randn(30))
        network.vectors.weight.mul_(3)
    return network


def _filled(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(one)) + one for one in prompts])
    return tokens, torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])


@torch.no_grad()
def _by_reading_again(network: RecurrentDecoder, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(network(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_the_state_is_worth_all_that_was_read(network: RecurrentDecoder) -> None:
    wanted = [_by_reading_again(network, prompt, 8) for prompt in _PROMPTS]
    tokens, mask = _filled(_PROMPTS)
    network.generation_config.eos_token_id = None  # nothing ends a row
    written = network.generate(tokens, attention_mask=mask, max_new_tokens=8)
    assert written[:, :4].equal(tokens) and written[:, 4:].tolist() == wanted
    end = wanted[0][3]
    cut = network.generate(tokens, attention_mask=mask, max_new_tokens=8, eos_token_id=[end], pad_token_id=0)
    first = wanted[0].index(end)
    assert cut[0, 4:].tolist()[: first + 1] == wanted[0][: first + 1]
    assert set(cut[0, 4 + first + 1 :].tolist()) <= {0}


def test_marks_choose_among_all_logits(network: RecurrentDecoder) -> None:
    plain = torch.tensor([[5, 6, 7, 8], [9, 4, 0, 0]])
    marked = plain.clone()
    for row, place in ((0, 1), (0, 3), (1, 0)):
        marked[row, place] = ~marked[row, place]
    with torch.no_grad():
        every, chosen = network(plain), network(marked)
        pairs = network(marked[:, None].expand(-1, 2, -1))
    torch.testing.assert_close(chosen[0], every[0, [1, 3]])
    torch.testing.assert_close(chosen[1, 0], every[1, 0])
    assert pairs.shape == (2, 2, 2, 30) and torch.equal(pairs[:, 0], pairs[:, 1])
    torch.testing.assert_close(pairs[:, 0], chosen)


class _Streamer:
    def __init__(self) -> None:
        self.put_: list[list[int]] = []
        self.ended = False

    def put(self, tokens: Tensor) -> None:
        self.put_.append(tokens.flatten().tolist())

    def end(self) -> None:
        self.ended = True


def test_tokens_are_streamed_and_drawn_until_it_is_stopped(network: RecurrentDecoder) -> None:
    tokens, mask = _filled(_PROMPTS[:1])
    stopped, streamer = threading.Event(), _Streamer()
    network.generation_config.eos_token_id = None

    def stops(ids: Tensor, _: Any) -> Tensor:
        if ids.shape[1] == 7:
            stopped.set()
        return torch.full((len(ids),), stopped.is_set())

    torch.manual_seed(1)
    written = network.generate(
        tokens,
        attention_mask=mask,
        max_new_tokens=50,
        do_sample=True,
        temperature=1.5,
        streamer=streamer,
        stopping_criteria=[stops],
    )
    assert written.shape == (1, 7) and streamer.ended
    assert streamer.put_ == [[5, 6, 7, 8], *([token] for token in written[0, 4:].tolist())]
    torch.manual_seed(2)
    other = network.generate(tokens, attention_mask=mask, max_new_tokens=30, do_sample=True, temperature=1.5)
    assert other[0, 4:7].tolist() != written[0, 4:].tolist()
