"""Preference tuning: the loss against equation 7 written out, pairs from files, what is left of long ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recaster.data.chat_sources import parse_pair, read_chats
from recaster.data.chat_tokens import ChatTokenizer
from recaster.data.contract_chat import describe_chat
from recaster.data.marked_rows import SuccessorRows
from recaster.data.preference_shards import PreferenceRows, rejected_of, write_preference_shard
from recaster.data.token_shards import make_token_shard, read_token_shard
from recaster.data.tokenizers import train_chat_byte_pairs
from recaster.evaluation.preference_report import (
    preference_accuracy,
    reference_free_accuracy,
    reward_margin,
)
from recaster.models import recurrent_decoder
from recaster.models.causal_models import CausalModel
from recaster.models.preference_loss import build_preference_loss, count_preferred

_PROMPTS = [[5, 6, 7], [8, 9], [3, 4, 5, 6]]
_REPLIES = [([10, 11, 2], [12, 2]), ([13, 2], [14, 15, 16, 2]), ([9, 2], [8, 2])]


def _decoder(name: str) -> nn.Module:
    torch.manual_seed(4)
    if name == "gru":
        return recurrent_decoder.build_model(
            network="gru", vocabulary=20, width=12, depth=1, dropout=0.0, padding=0, end=2
        ).double()
    from transformers import AutoConfig, AutoModelForCausalLM

    # Of this architecture all is computed in float64 then; a Llama's norms are not.
    config = AutoConfig.for_model("gpt2", vocab_size=20, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    return CausalModel(AutoModelForCausalLM.from_config(config)).double().eval()


def _rows(reference: np.ndarray[Any, Any]) -> PreferenceRows:
    sides = []
    for side in (0, 1):
        rows = []
        for prompt, replies in zip(_PROMPTS, _REPLIES, strict=True):
            marked = [*prompt[:-1], *(~token for token in [prompt[-1], *replies[side][:-1]])]
            rows.append([*marked, replies[side][-1]])
        counts = np.array([len(replies[side]) for replies in _REPLIES])
        sides.append(SuccessorRows(make_token_shard(rows, labels=counts, ids=["a", "b", "c"]), padding=0))
    return PreferenceRows(sides, reference, padding=0)


def _plain_log_probability(model: nn.Module, prompt: list[int], reply: list[int]) -> Tensor:
    """One token after the other, each from all that is before it."""
    total = torch.zeros((), dtype=torch.float64)
    for place, token in enumerate(reply):
        read = torch.tensor([[*prompt, *reply[:place]]])
        total = total + model(read)[0, -1].log_softmax(0)[token]
    return total


@pytest.mark.parametrize("name", ["gpt2", "gru"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradient_are_those_of_equation_7(name: str, smoothing: float) -> None:
    base, model = _decoder(name), _decoder(name)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())) * 0.1)
        reference = np.array(
            [
                [float(_plain_log_probability(base, prompt, reply)) for reply in replies]
                for prompt, replies in zip(_PROMPTS, _REPLIES, strict=True)
            ]
        )
    beta, wanted, margins = 0.3, torch.zeros((), dtype=torch.float64), []
    for (chosen, rejected), prompt, told in zip(_REPLIES, _PROMPTS, reference, strict=True):
        better = _plain_log_probability(model, prompt, chosen) - told[0]
        worse = _plain_log_probability(model, prompt, rejected) - told[1]
        margins.append((better - worse).item())
        for share, margin in ((1 - smoothing, better - worse), (smoothing, worse - better)):
            wanted = wanted - share * torch.log(1 / (1 + torch.exp(-beta * margin)))
    gradients = torch.autograd.grad(wanted, list(model.parameters()))
    tokens, targets = _rows(reference).batch(np.arange(3), seed=None)
    section = {"beta": beta, "label_smoothing": smoothing}
    logits = model(tokens)
    found = build_preference_loss(section, training=True)(logits, targets)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found, list(model.parameters()), retain_graph=True), gradients, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert int(count_preferred(logits, targets)) == sum(margin > 0 for margin in margins)
    plain = build_preference_loss(section, training=False)(logits, targets)
    assert plain.item() == pytest.approx(sum(math.log1p(math.exp(-beta * margin)) for margin in margins))
    assert (plain.item() != found.item()) == bool(smoothing)


def test_a_pair_is_the_same_whatever_stands_beside_it() -> None:
    reference = np.array([[-3.0, -4.0], [-5.0, -6.0], [-7.0, -8.0]])
    data, model = _rows(reference), _decoder("gpt2")
    loss_sum = build_preference_loss({"beta": 0.1, "label_smoothing": 0.0}, training=True)
    batches = [_batch(data, rows) for rows in ([0, 1, 2], [2], [1, 0])]
    whole, *parts = (loss_sum(model(tokens), targets) for tokens, targets in batches)
    torch.testing.assert_close(whole, parts[0] + parts[1], rtol=1e-12, atol=1e-12)
    tokens, targets = _batch(data, [1, 0])
    assert tokens.shape == (2, 2, 6) and targets.shape == (2, 2, 5)
    assert targets[0].tolist() == [[-5.0, 13, 2, -100, -100], [-6.0, 14, 15, 16, 2]]
    assert data.ids(np.array([1, 0])) == ["b", "a"] and data.lengths.tolist() == [[6, 5], [4, 6], [6, 6]]


def _batch(data: PreferenceRows, rows: list[int]) -> tuple[Tensor, Tensor]:
    return data.batch(np.array(rows), seed=None)


def _say(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} speaks"} for role in roles]


_REPLY, _WORSE = _say("user", "assistant"), [{"role": "assistant", "content": "no"}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": _REPLY, "rejected": "no"},
        {"messages": _REPLY, "rejected": _WORSE},
        {"messages": _REPLY[:1], "chosen": "assistant speaks", "rejected": "no"},
        {"prompt": "user speaks", "chosen": "assistant speaks", "rejected": "no"},
        {"prompt": _REPLY[:1], "chosen": _REPLY[1:], "rejected": _WORSE},
        {"chosen": _REPLY, "rejected": [*_REPLY[:1], *_WORSE]},
        {"prompt": "user speaks", "chosen": _REPLY, "rejected": [*_REPLY[:1], *_WORSE]},
    ],
)
def test_the_usual_forms_of_pairs_are_one(tmp_path: Path, row: dict[str, Any]) -> None:
    (record,) = _read(tmp_path, row)
    assert record.problem == "" and parse_pair(record.text) == (_REPLY, "no")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"chosen": "a", "rejected": "b"}, "chosen is a text, and no prompt"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "chosen is int"),
        ({"prompt": "a", "chosen": [], "rejected": "b"}, "chosen has no message"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "messages is int"),
        ({"prompt": "a", "chosen": "b", "rejected": [{"role": "user"}]}, "lacks a role or content"),
        ({"chosen": _REPLY, "rejected": _say("system", "assistant")}, "differ before their last message"),
        ({"chosen": _REPLY, "rejected": _say("user", "user")}, "ends with a message of user"),
    ],
)
def test_bad_pairs_say_what_is_wrong(tmp_path: Path, row: dict[str, Any], problem: str) -> None:
    (record,) = _read(tmp_path, row)
    assert problem in record.problem and record.text is None


def _read(folder: Path, row: dict[str, Any]) -> list[Any]:
    (folder / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    return list(read_chats(folder / "pairs.jsonl") or [])


def test_facts_of_a_pair() -> None:
    told = [
        describe_chat({"text": json.dumps({"messages": _REPLY, "rejected": reply})})
        for reply in ("no", " ", "assistant speaks ")
    ]
    told.append(describe_chat({"text": json.dumps(_say("user"))}))
    assert [one["rejected_replies"] for one in told] == [1, 1, 1, 0]
    assert [one["empty_rejected"] for one in told] == [0, 1, 0, 0]
    assert [one["equal_replies"] for one in told] == [0, 0, 1, 0]
    assert [one["last_role"] for one in told] == ["assistant", "assistant", "assistant", "user"]


def test_of_long_conversations_the_earliest_turns_are_left_out(tmp_path: Path) -> None:
    texts = ["one two three four", "be brief", "yes it is", "no"]
    train_chat_byte_pairs(texts, vocabulary=290, folder=tmp_path / "tokenizer")
    tokenizer = ChatTokenizer(tmp_path / "tokenizer")
    turns = [("user", "one two three four"), ("assistant", "yes it is")] * 3
    messages = [{"role": "system", "content": "be brief"}]
    messages += [{"role": role, "content": content} for role, content in turns]
    records: Any = [
        SimpleNamespace(id=name, text=json.dumps({"messages": messages, "rejected": rejected}))
        for name, rejected in (("kept", "no"), ("same when cut", "yes it is one two three four"))
    ]
    last = len(tokenizer.encode_reply([*messages[:1], *messages[-2:]], 1000).tokens)
    counts = write_preference_shard(tmp_path, "test", records[:1], tokenizer=tokenizer, longest=last + 8)
    assert counts["rows"] == 1 and counts["truncated"] == 1.0
    for name, reply in (("test", "yes it is"), (rejected_of("test"), "no")):
        shard = read_token_shard(tmp_path, name)
        marked = np.array(shard.tokens)
        wanted = tokenizer.encode_reply(
            [messages[0], messages[1], {"role": "assistant", "content": reply}], 1000
        )
        assert np.where(marked < 0, ~marked, marked).tolist() == wanted.tokens
        assert [place for place, token in enumerate(marked.tolist()) if token < 0] == [
            place - 1 for place, own in enumerate(wanted.learned) if own
        ]
    same = tokenizer.encode_reply([*messages[:1], *messages[-2:]], 1000)
    longest = max(place for place, own in enumerate(same.learned) if own)  # all of the reply but its end
    counts = write_preference_shard(tmp_path, "train", records[1:], tokenizer=tokenizer, longest=longest)
    assert (counts["rows"], counts["nothing_learned"]) == (0, 1)


def test_what_is_measured_of_pairs() -> None:
    """Of the base itself a half; a reply that is only likelier is not preferred."""
    columns = [[0, 0, -9, -5, -10, -5, 0.1], [0, 0, -4, -6, -3, -6, 0.1], [0, 0, -2, -7, -2, -7, 0.1]]
    predictions, targets = np.array(columns, dtype=float), np.ones(3, dtype=np.int64)
    assert preference_accuracy(predictions, targets) == pytest.approx((1 + 0 + 0.5) / 3)
    assert reference_free_accuracy(predictions, targets) == pytest.approx(2 / 3)
    assert reward_margin(predictions, targets) == pytest.approx(0.1 * (1 - 1 + 0) / 3)
