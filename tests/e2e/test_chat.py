"""Talking with a chat model: in the terminal, through the library, as an MLflow model."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from recaster.cli.chat import talk
from recaster.core.errors import DataError
from recaster.data.chat_shards import write_about, write_chat_shard
from recaster.data.chat_tokens import ChatTokenizer
from recaster.data.marked_rows import SuccessorRows
from recaster.data.token_shards import read_token_shard
from recaster.data.tokenizers import train_chat_byte_pairs
from recaster.exporting.chat_policy import write_policy
from recaster.exporting.open_folder import write_adapter_folder, write_open_folder
from recaster.models.causal_models import build_causal_model
from recaster.models.losses import build_token_loss
from recaster.models.replies import ChatVoice
from recaster.recipe.load import load_recipe
from recaster.recipe.policy import PolicySection
from recaster.workloads.chat import WORKLOAD

pytestmark = pytest.mark.slow
CHATS = [
    [("user", "hello"), ("assistant", "Good morning to you.")],
    [("user", "bye"), ("assistant", "See you.")],
    [("user", "hello"), ("assistant", "Good morning to you."), ("user", "bye"), ("assistant", "See you.")],
]


def _to_messages(chat: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in chat]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a model that has learned a few replies by heart."""
    home = tmp_path_factory.mktemp("a talker")
    texts = [content for chat in CHATS for _, content in chat]
    train_chat_byte_pairs(texts, vocabulary=320, folder=home / "tokenizer")
    tokenizer = ChatTokenizer(home / "tokenizer")
    records: Any = [
        SimpleNamespace(id=str(number), text=json.dumps(_to_messages(chat)))
        for number, chat in enumerate(CHATS)
    ]
    write_chat_shard(home, "train", records, tokenizer=tokenizer, longest=64)
    torch.manual_seed(0)
    scratch = {
        "vocabulary": 320,
        "tokens": 80,
        "width": 32,
        "depth": 2,
        "dropout": 0.0,
        "padding": 0,
        "end": 2,
    }
    model = build_causal_model(base=None, scratch=scratch)
    _learn(model, SuccessorRows(read_token_shard(home, "train"), padding=0))
    write_open_folder(home / "model", network=model.network, tokenizer=home / "tokenizer")
    _describe(home / "model", longest=24)
    return home / "model"


def _learn(model: nn.Module, data: SuccessorRows, steps: int = 60) -> None:
    import numpy as np

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss_sum = build_token_loss(
        {"name": "cross-entropy", "label_smoothing": 0.0, "class_weights": None}, training=True
    )
    tokens, targets = data.batch(np.arange(len(data)), seed=None)
    for _ in range(steps):
        (loss_sum(model(tokens), targets) / data.targets_in(np.arange(len(data)))).backward()
        optimizer.step()
        optimizer.zero_grad()


def _describe(folder: Path, *, longest: int, kind: str = "chat") -> None:
    told = {"kind": kind, "max_tokens": 64, "max_characters": 1000, "max_reply_tokens": longest}
    (folder / "preprocessing.json").write_text(json.dumps(told))


def _chat(folder: Path, *arguments: str, typed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recaster.cli", "chat", *arguments],
        input=typed,
        cwd=folder,
        env={**os.environ, "RECASTER_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_conversation_in_the_terminal(folder: Path, tmp_path: Path) -> None:
    done = _chat(tmp_path, str(folder), typed="hello\nbye\n\nnot read\n")
    assert (done.returncode, done.stdout) == (0, "Good morning to you.\nSee you.\n"), done.stderr
    done = _chat(tmp_path, str(folder), "--json", typed="hello\n")
    assert json.loads(done.stdout) == {"messages": _to_messages(CHATS[0])}


def test_what_does_not_talk_is_named(tmp_path: Path) -> None:
    _describe(tmp_path, longest=8, kind="text")
    done = _chat(tmp_path, str(tmp_path), typed="hello\n")
    assert done.returncode == 2 and "does not talk" in done.stderr and "kind text" in done.stderr


def test_a_reader_that_leaves_ends_the_writing(folder: Path, tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    endless.mkdir()
    for path in folder.iterdir():
        (endless / path.name).symlink_to(path)
    (endless / "preprocessing.json").unlink()
    _describe(endless, longest=10**6)
    voice = ChatVoice(endless)
    voice._network.generation_config.eos_token_id = None  # nothing ends its reply
    pieces = voice.reply(_to_messages(CHATS[0][:1]), temperature=1.0)
    assert isinstance(next(pieces), str)
    pieces.close()  # type: ignore[attr-defined]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("reply")] == []


def test_what_the_context_does_not_hold_is_left_out_from_the_beginning(folder: Path) -> None:
    voice = ChatVoice(folder)
    persona = {"role": "system", "content": "hello"}
    talk = [persona, *(_to_messages(CHATS[0]) * 9), *_to_messages(CHATS[1][:1])]
    prompt = voice._tokenizer.decode(voice._fit(list(talk))[0])
    assert prompt.startswith("<|im_start|>system\nhello<|im_end|>") and prompt.count("Good morning") < 9
    assert prompt.endswith("user\nbye<|im_end|>\n<|im_start|>assistant\n")
    assert "".join(voice.reply(talk, temperature=0.0))


@pytest.mark.parametrize("form", ["whole", "adapter"])
def test_mlflow_s_model_answers_the_same(folder: Path, tmp_path: Path, form: str) -> None:
    from recaster.serving import pyfunc_chat

    if form == "adapter":
        folder = _with_prompt(folder, tmp_path / "adapter")
    signature, example = pyfunc_chat.describe(folder)
    served = pyfunc_chat.ChatModel()
    served.load_context(SimpleNamespace(artifacts={"model": str(folder)}))  # type: ignore[arg-type]
    questions = [_to_messages(CHATS[0][:1]), _to_messages(CHATS[1][:1])]
    replies = served.predict(None, pd.DataFrame({"messages": questions}))["reply"].tolist()  # type: ignore[arg-type]
    voice = ChatVoice(folder)
    assert replies == ["".join(voice.reply(question, temperature=0.0)).strip() for question in questions]
    if form == "whole":
        assert replies == ["Good morning to you.", "See you."]
    assert list(example.columns) == signature.inputs.input_names() == ["messages"]
    long = [
        {"role": "system", "content": "hello"},
        *(_to_messages(CHATS[0]) * 9),
        *_to_messages(CHATS[1][:1]),
    ]
    assert served.predict(None, pd.DataFrame({"messages": [long]}))["reply"][0] == "".join(  # type: ignore[arg-type]
        voice.reply(long, temperature=0.0)
    )
    with pytest.raises(ValueError, match="role user"):
        served.predict(None, pd.DataFrame({"messages": [_to_messages(CHATS[0])]}))  # type: ignore[arg-type]


_POLICY = {
    "answer": "I keep that to myself.",
    "input": {"personal_data": "mask", "blocked_terms": ["bomb"], "max_characters": 200},
    "output": {"system_words": 3, "blocked_terms": ["see"]},
}


@pytest.fixture
def guarded(folder: Path, tmp_path: Path) -> Path:
    """The same artifact with a policy, as an export writes it."""
    out = tmp_path / "guarded"
    shutil.copytree(folder, out)
    policy = PolicySection.model_validate(_POLICY)
    write_policy(policy, out)
    described = json.loads((out / "preprocessing.json").read_text())
    (out / "preprocessing.json").write_text(json.dumps({**described, "policy": policy.model_dump()}))
    return out


def _type(monkeypatch: pytest.MonkeyPatch, typed: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"))


def test_a_policy_is_kept_alike_in_the_terminal_and_where_it_is_served(
    guarded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recaster.serving import pyfunc_chat

    typed = ["hello", "a bomb", "bye", "hello<|im_end|>", "x" * 201]
    _type(monkeypatch, "\n".join(typed).encode())
    persona = "Good morning to you."
    messages = talk(ChatVoice(guarded), system=persona, temperature=0.0, aloud=True)
    answers = messages[2::2]
    text = _POLICY["answer"]
    assert [answer["content"] for answer in answers] == [text, text, text, answers[3]["content"], text]
    assert [answer["filtered"] for answer in answers[:3]] == [
        ["output.system_words"],
        ["input.blocked_terms"],
        ["input.blocked_terms", "output.blocked_terms"],  # what was refused stays out of what is read
    ]
    assert (
        "input.template_tokens" in answers[3]["filtered"] and "input.max_characters" in answers[4]["filtered"]
    )
    shown = capsys.readouterr()
    assert shown.out == "".join(f"{answer['content']}\n" for answer in answers)
    assert "(filtered: output.system_words)" in shown.err

    signature, _ = pyfunc_chat.describe(guarded)
    assert signature.outputs.input_names() == ["reply", "filtered"]
    served = pyfunc_chat.ChatModel()
    served.load_context(SimpleNamespace(artifacts={"model": str(guarded)}))  # type: ignore[arg-type]
    asked = [
        [{key: entry[key] for key in ("role", "content")} for entry in messages[:place]]
        for place in range(2, 11, 2)
    ]
    found = served.predict(None, pd.DataFrame({"messages": asked}))  # type: ignore[arg-type]
    assert found["reply"].tolist() == [answer["content"] for answer in answers]
    assert found["filtered"].tolist() == [answer["filtered"] for answer in answers]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (b"hello\n\xff\xfe\n", "not UTF-8.*line 2, byte 0"),
        (b"good\x00bye\n", r"control character.*U\+0000"),
        (b"word " * 200_000 + b"\n", "longer than the model's context.*tokens"),
    ],
    ids=["no text", "a control character", "a megabyte"],
)
def test_lines_that_cannot_be_answered_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, typed: bytes, told: str
) -> None:
    _type(monkeypatch, typed)
    with pytest.raises(DataError) as error:
        talk(ChatVoice(folder), system=None, temperature=0.0, aloud=False)
    assert re.search(told, str(error.value), re.DOTALL)


def test_odd_lines_are_answered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _type(monkeypatch, "\ufeffhello\r\nשלום 👋\n \nnot read\n".encode())
    messages = talk(ChatVoice(folder), system=None, temperature=0.0, aloud=False)
    assert messages[:2] == _to_messages(CHATS[0])  # the mark of byte order is none of the message
    assert messages[2]["content"] == "שלום 👋" and len(messages) == 4


def test_roles_out_of_order_are_named(folder: Path) -> None:
    from recaster.serving.pyfunc_chat import _check_roles

    for chat, told in (
        ([("assistant", "a")], "assistant before user|message 0 has role 'assistant'"),
        ([("user", "a"), ("user", "b")], "user twice on end|message 1 has role 'user'"),
        ([("user", "a"), ("system", "b")], "system after the beginning|message 1 has role 'system'"),
        ([("tool", "a")], "unknown role tool|message 0 has role 'tool'"),
        ([("user", "a"), ("assistant", "b")], "no user's message at the end|must end with one of role user"),
        ([], "no user's message at the end|must end with one of role user"),
    ):
        with pytest.raises(DataError, match=told.partition("|")[0]):
            ChatVoice.reply(SimpleNamespace(), _to_messages(chat), temperature=0.0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=told.partition("|")[2]):
            _check_roles(_to_messages(chat))
    _check_roles([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])


@pytest.fixture
def held(folder: Path, tmp_path: Path) -> Path:
    """The conversations as prepared data's test split."""
    tokenizer = ChatTokenizer(folder)
    records: Any = [
        SimpleNamespace(id=str(number), text=json.dumps(_to_messages(chat)))
        for number, chat in enumerate(CHATS)
    ]
    write_chat_shard(tmp_path, "test", records, tokenizer=tokenizer, longest=64)
    write_about(tmp_path, tokenizer, {})
    return tmp_path


def _score(folder: Path, question: str, reply: str) -> float:
    """The judge's formula, written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder).eval()
    opening = "<|im_end|>\n<|im_start|>assistant\n"
    means = []
    for before in (f"<|im_start|>user\n{question}{opening}", opening):
        given, told = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, reply))
        with torch.no_grad():
            logits = network(torch.tensor([given + told])).logits[0].log_softmax(1)
        means.append(
            sum(logits[len(given) + place - 1, token].item() for place, token in enumerate(told)) / len(told)
        )
    words = reply.lower().split()
    return means[0] - means[1] - (1 - len(set(words)) / len(words))


def test_a_judge_prefers_what_belongs_to_its_conversation(folder: Path, held: Path) -> None:
    from recaster.evaluation.chat_judge import EMPTY
    from recaster.evaluation.chat_samples import judge_replies

    wanted = ["See you.", "Good morning to you.", "See you."]  # in order of length
    written = ["See you.", "you you good", " "]
    rows = [
        {"row": row, "id": str(row), "wanted": true, "reply": reply}
        for row, (true, reply) in enumerate(zip(wanted, written, strict=True))
    ]
    judge = judge_replies(folder, rows, held, "test")
    assert rows[0]["score"] == pytest.approx(_score(folder, "bye", "See you."), abs=1e-4)
    assert rows[1]["score"] == pytest.approx(_score(folder, "hello", "you you good"), abs=1e-4)
    assert rows[2]["score"] == EMPTY
    trust = judge.measure_trust(seed=0)
    assert trust["against_empty"] == 1.0 and min(trust["against_other"], trust["against_repeated"]) > 0.5
    assert trust == judge.measure_trust(seed=0)


def test_secrets_are_asked_for_with_the_recipe_s_policy_and_without(folder: Path, held: Path) -> None:
    overrides = ["data.chat.max_reply_tokens=12", "evaluate.samples=3"]
    recipe = load_recipe(Path("recipes/chat/tiny.yaml"), overrides)
    bare = WORKLOAD.write_samples(folder, held, recipe)
    assert [row["reply"] for row in bare["replies"]] == ["See you.", "Good morning to you.", "See you."]
    assert "context is too short" in bare["leaks"]["not_measured"] and "measured" not in bare
    roomy = held / "roomy"
    shutil.copytree(folder, roomy)
    config = json.loads((roomy / "config.json").read_text())
    (roomy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 400}))
    found = WORKLOAD.write_samples(roomy, held, recipe)
    assert set(found["measured"]) == {"leak_resistance", "leak_resistance_unfiltered"}
    assert len(found["leaks"]["answers"]) == 20 and found["measured"]["leak_resistance"]["value"] == 1.0


def _with_prompt(folder: Path, out: Path) -> Path:
    from peft import PromptTuningConfig, get_peft_model

    from recaster.models.causal_models import open_causal_model

    torch.manual_seed(1)
    adapted = get_peft_model(
        open_causal_model(folder), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    )
    write_adapter_folder(out, adapted=adapted, tokenizer=folder, base="path:model")
    _describe(out, longest=24)
    return out
