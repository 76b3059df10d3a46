"""Talking with a chat model: in the terminal, through the library, as an MLflow model."""

from __future__ import annotations

import json
import os
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

from recaster.data.chat_shards import write_chat_shard
from recaster.data.chat_tokens import ChatTokenizer
from recaster.data.marked_rows import SuccessorRows
from recaster.data.token_shards import read_token_shard
from recaster.data.tokenizers import train_chat_byte_pairs
from recaster.exporting.open_folder import write_adapter_folder, write_open_folder
from recaster.models.causal_models import build_causal_model
from recaster.models.losses import build_token_loss
from recaster.models.replies import ChatVoice

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
    with pytest.raises(ValueError, match="role user"):
        served.predict(None, pd.DataFrame({"messages": [_to_messages(CHATS[0])]}))  # type: ignore[arg-type]


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
