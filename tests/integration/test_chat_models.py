"""Chat templates, causal models and what is trained of them, on a small Llama with fresh weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.customization.build import build_customized, load_merged, load_trained
from recaster.customization.protocol import load_method
from recaster.data.chat_shards import pack_chats, write_about, write_chat_shard, write_encoded
from recaster.data.chat_tokens import ChatTokenizer, EncodedChat
from recaster.data.tokenizers import train_chat_byte_pairs
from recaster.exporting.open_folder import write_adapter_folder, write_open_folder
from recaster.models.causal_models import CausalModel, build_causal_model, open_causal_model
from recaster.models.losses import NO_TARGET, build_token_loss
from recaster.recipe.customize import CustomizeSection
from recaster.training.checkpoint import trained_tensors, whole_state
from recaster.workloads.chat import WORKLOAD

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " who is it?\n"},
    {"role": "assistant", "content": " It is me.  The weather 😀 is fine\n"},
    {"role": "user", "content": "and now"},
    {"role": "assistant", "content": "¿Still me? יש"},
    {"role": "user", "content": "nobody answers this"},
]
TEMPLATES = {
    "turns end with a token": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "turns end with a line": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "trimmed": "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open model as its authors publish it: weights, configuration, tokenizer, template."""
    folder = tmp_path_factory.mktemp("base") / "model"
    train_chat_byte_pairs([message["content"] for message in TALK], vocabulary=400, folder=folder)
    torch.manual_seed(0)
    scratch = {
        "vocabulary": 400,
        "tokens": 64,
        "width": 32,
        "depth": 2,
        "dropout": 0.0,
        "padding": 0,
        "end": 2,
    }
    write_open_folder(
        folder, network=build_causal_model(base=None, scratch=scratch).network, tokenizer=folder
    )
    return folder


@pytest.fixture
def plan(base: Path, tmp_path: Path) -> dict[str, Any]:
    about = {"padding": 0, "vocabulary": ChatTokenizer(base).size, "stop": [2], "divider": None}
    (tmp_path / "splits.json").write_text(json.dumps(about))
    np.save(tmp_path / "train.tokens.npy", np.arange(5, 25, dtype=np.int32))
    return {
        "prepared": str(tmp_path),
        "base": str(base),
        "model_arguments": {
            "architecture": "small-decoder",
            "width": 32,
            "depth": 2,
            "dropout": 0.0,
            "tokens": 64,
        },
        "train": {"seed": 1, "activation_checkpointing": False, "freeze": []},
    }


def _customize(plan: dict[str, Any], method: str, **options: Any) -> dict[str, Any]:
    section = CustomizeSection.model_validate({"method": method, **options})
    return {**plan, "customize": section.model_dump()}


def _batch() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(3, 300, (3, 12), generator=torch.Generator().manual_seed(1))
    marked = tokens.clone()
    targets = torch.full((3, 4), NO_TARGET)
    for row, places in enumerate(([2, 3, 9], [0], [4, 5, 6, 10])):
        marked[row, places] = ~marked[row, places]
        targets[row, : len(places)] = tokens[row, [place + 1 for place in places]]
    return marked, targets


def _train(model: nn.Module, steps: int = 3) -> nn.Module:
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.05)
    loss_sum = build_token_loss(
        {"name": "cross-entropy", "label_smoothing": 0.0, "class_weights": None}, training=True
    )
    tokens, targets = _batch()
    for _ in range(steps):
        loss_sum(model(tokens), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def _trained(plan: dict[str, Any], path: Path) -> tuple[Tensor, Path]:
    """What a trained model of the plan answers, and its weights as training leaves them."""
    model = _train(build_customized(WORKLOAD, plan)).eval()
    save_file({name: value.contiguous() for name, value in trained_tensors(model).items()}, path)
    with torch.no_grad():
        return model(_batch()[0]), path


@pytest.mark.parametrize("name", TEMPLATES)
def test_learned_tokens_are_the_replies_of_the_template_s_own_text(
    base: Path, tmp_path: Path, name: str
) -> None:
    folder = _with_template(base, tmp_path, TEMPLATES[name])
    tokenizer = ChatTokenizer(folder)
    chat = tokenizer.encode(TALK, 10_000)
    from transformers import AutoTokenizer

    official = AutoTokenizer.from_pretrained(folder)
    assert chat.tokens == official.apply_chat_template(TALK[:-1], return_dict=True)["input_ids"]
    assert not chat.truncated and len(chat.learned) == len(chat.tokens)
    ends = "\n" if "line" in name else "<|im_end|>"
    wanted = [message["content"] for message in TALK if message["role"] == "assistant"]
    wanted = [text.strip() if name == "trimmed" else text for text in wanted]
    assert official.decode(_runs(chat.tokens, chat.learned)) == "".join(text + ends for text in wanted)
    assert tokenizer.closing_tokens() == ([] if "line" in name else [2])
    cut = tokenizer.encode(TALK, 20)
    assert cut.truncated and cut.tokens == chat.tokens[:20] and cut.learned == chat.learned[:20]


def _runs(tokens: list[int], learned: list[bool]) -> list[int]:
    return [token for token, own in zip(tokens, learned, strict=True) if own]


def _with_template(base: Path, folder: Path, template: str) -> Path:
    told = json.loads((base / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**told, "chat_template": template}))
    (folder / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (
            "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}",
            "changes earlier turns",
        ),
        ("{{ raise_exception('no system') if messages[0].role == 'system' }}", "does not take this"),
        ("", "no chat template"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(
    base: Path, tmp_path: Path, template: str, told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        ChatTokenizer(_with_template(base, tmp_path, template)).encode(TALK, 100)


def test_only_marked_tokens_get_logits_and_they_are_the_same(base: Path) -> None:
    model = CausalModel(open_causal_model(base))
    marked, _ = _batch()
    plain = torch.where(marked < 0, ~marked, marked)
    with torch.no_grad():
        every, chosen = model(plain), model(marked)
    assert every.shape == (3, 12, 400) and chosen.shape == (3, 4, 400)
    for row in range(3):
        places = (marked[row] < 0).nonzero()[:, 0]
        torch.testing.assert_close(chosen[row, : len(places)], every[row, places])


@pytest.mark.parametrize("name", ["cross-entropy", "focal", "margin", "brier"])
def test_what_is_not_learned_does_not_count_in_the_loss(name: str) -> None:
    section = {"name": name, "label_smoothing": 0.1, "gamma": 2.0, "class_weights": None}
    loss_sum = build_token_loss(section, training=True)
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(3))
    targets = torch.tensor([[1, 2, NO_TARGET], [5, NO_TARGET, NO_TARGET]])
    parts = [loss_sum(logits[:1, :2], targets[:1, :2]), loss_sum(logits[1:, :1], targets[1:, :1])]
    torch.testing.assert_close(loss_sum(logits, targets), sum(parts))


@pytest.mark.parametrize("targets", [[], ["all-linear"]])
def test_merged_equals_adapter_and_embeddings_stay_tied(
    plan: dict[str, Any], tmp_path: Path, targets: list[str]
) -> None:
    plan = _customize(plan, "lora", lora={"rank": 4, "targets": targets})
    told, weights = _trained(plan, tmp_path / "weights.safetensors")
    assert all("lora" in name for name in load_file(weights))
    with torch.no_grad():
        before = build_causal_model(base=Path(plan["base"]), scratch={"vocabulary": 0}).eval()(_batch()[0])
        apart = load_trained(WORKLOAD, plan, weights)(_batch()[0])
    assert (told - before).abs().max() > 0.1  # something was learned
    torch.testing.assert_close(apart, told)
    merged = load_merged(WORKLOAD, plan, weights)
    write_open_folder(tmp_path / "out", network=merged.network, tokenizer=Path(plan["base"]))
    network: Any = open_causal_model(tmp_path / "out")
    with torch.no_grad():
        assert (CausalModel(network)(_batch()[0]) - told).abs().max() < 1e-4
    assert network.lm_head.weight.data_ptr() == network.model.embed_tokens.weight.data_ptr()
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")


def test_tied_embeddings_cannot_be_targets(plan: dict[str, Any]) -> None:
    for name in ("lm_head", "embed_tokens"):
        with pytest.raises(RecipeError, match="one table"):
            build_customized(WORKLOAD, _customize(plan, "lora", lora={"targets": [name]}))


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_a_prompt_is_exported_beside_its_base(plan: dict[str, Any], tmp_path: Path, method: str) -> None:
    plan = _customize(plan, method, prompt={"tokens": 5})
    told, weights = _trained(plan, tmp_path / "weights.safetensors")
    assert sum(value.numel() for value in load_file(weights).values()) < 1000
    model = load_trained(WORKLOAD, plan, weights)
    with pytest.raises(RecipeError, match="cannot be merged"):
        load_method(plan).merge(model, plan)
    out = tmp_path / "out"
    write_adapter_folder(out, adapted=model.network, tokenizer=Path(plan["base"]), base="path:model")
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "path:model"
    with torch.no_grad():
        torch.testing.assert_close(CausalModel(open_causal_model(out))(_batch()[0]), told)
        untuned = CausalModel(open_causal_model(out / "base"))(_batch()[0])
    assert (untuned - told).abs().max() > 0.1


def test_a_prefix_begins_as_the_first_tokens_of_the_data(plan: dict[str, Any], base: Path) -> None:
    model = build_customized(WORKLOAD, _customize(plan, "prefix", prompt={"tokens": 5})).eval()
    (tokens, targets), first = _batch(), torch.arange(5, 10).expand(3, 5)
    learned = targets != NO_TARGET
    untuned = CausalModel(open_causal_model(base)).eval()
    with torch.no_grad():
        found, wanted, without = model(tokens), untuned(torch.cat([first, tokens], 1)), untuned(tokens)
    torch.testing.assert_close(found[learned], wanted[learned], atol=1e-4, rtol=1e-4)
    assert (found - without)[learned].abs().max() > 0.01


def test_full_training_is_saved_under_one_name_for_tied_weights(plan: dict[str, Any], tmp_path: Path) -> None:
    plan = _customize(plan, "full")
    told, weights = _trained(plan, tmp_path / "weights.safetensors")
    assert "network.lm_head.weight" not in load_file(weights)
    with torch.no_grad():
        torch.testing.assert_close(load_merged(WORKLOAD, plan, weights)(_batch()[0]), told)
    fresh = {**plan, "base": None}
    model = build_customized(WORKLOAD, fresh)
    save_file(whole_state(model), tmp_path / "fresh.safetensors")
    loaded = load_trained(WORKLOAD, fresh, tmp_path / "fresh.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded(_batch()[0]), model.eval()(_batch()[0]))


def test_a_champion_with_another_tokenizer_is_measured_on_the_same_replies(
    base: Path, tmp_path: Path
) -> None:
    """Nats are those of the model's own tokens, divided by the number of whoever prepared them."""
    other = tmp_path / "other"
    train_chat_byte_pairs(["it is me", "still me, and the weather"], vocabulary=290, folder=other)
    records: Any = [SimpleNamespace(id=str(n), text=json.dumps(TALK[: 3 + 2 * n])) for n in range(2)]
    found = {}
    for name, folder in (("own", base), ("others", other)):
        tokenizer = ChatTokenizer(folder)
        (tmp_path / name).mkdir()
        write_chat_shard(tmp_path / name, "test", records, tokenizer=tokenizer, longest=1000)
        write_about(tmp_path / name, tokenizer, {})
        found[name] = WORKLOAD.predict(base, tmp_path / name, "test")
    (own, own_counts), (others, other_counts) = found["own"], found["others"]
    assert (other_counts > own_counts).all()  # a smaller vocabulary
    np.testing.assert_allclose(others[:, 0], own[:, 0], rtol=1e-5)
    np.testing.assert_allclose(others[:, 1] / other_counts, own[:, 1] / own_counts)
    told = json.loads((other / "tokenizer_config.json").read_text())
    changed = {**told, "chat_template": "[chat]" + told["chat_template"]}
    (other / "tokenizer_config.json").write_text(json.dumps(changed))
    write_about(tmp_path / "others", ChatTokenizer(other), {})
    with pytest.raises(RecipeError, match="another chat template"):
        WORKLOAD.predict(base, tmp_path / "others", "test")


@pytest.mark.parametrize("longest", [24, 31, 47])
def test_a_cut_text_ends_where_its_tokens_do(base: Path, longest: int) -> None:
    tokenizer = ChatTokenizer(base)
    cut = tokenizer.encode(TALK, longest)
    assert cut.truncated and tokenizer.mark(cut.text, cut.parts) == (cut.tokens, cut.learned)


def _packed(base: Path, folder: Path) -> tuple[list[EncodedChat], int]:
    """Conversations of several lengths, and the token that divides them, which none of them has."""
    tokenizer = ChatTokenizer(base)
    short = [{"role": "user", "content": "who"}, {"role": "assistant", "content": "me"}] * 2
    chats = [
        tokenizer.encode([*short[:count], {"role": "assistant", "content": word}], 64)
        for count, word in ((1, "is"), (3, "it me"), (1, "fine"), (1, "me me"), (1, "weather"))
    ]
    divider = tokenizer.dividing_token()
    assert all(divider not in chat.tokens for chat in chats)
    rows, ids = pack_chats(chats, list("abcde"), longest=64, divider=divider)
    assert sorted("+".join(ids).split("+")) == list("abcde") and len(rows) < len(chats)
    assert max(len(row.tokens) for row in rows) <= 64
    write_encoded(folder, "train", rows, ids, texts=False)
    write_about(folder, tokenizer, {}, divider=divider)
    return chats, divider


def test_packed_conversations_are_learned_as_if_each_stood_alone(
    plan: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    chats, divider = _packed(base, tmp_path)
    model: Any = build_customized(WORKLOAD, _customize(plan, "full")).eval()
    assert model.end == divider and not model.begins
    data = WORKLOAD.open_split(tmp_path, "train", plan)
    loss_sum = build_token_loss(
        {"name": "cross-entropy", "label_smoothing": 0.0, "class_weights": None}, training=False
    )
    tokens, targets = data.batch(np.arange(len(data)), seed=None)
    assert (targets != NO_TARGET).sum() == sum(sum(chat.learned[1:]) for chat in chats)
    with torch.no_grad():
        packed = loss_sum(model(tokens), targets)
        model.end = None  # each would see those before it
        leaking = loss_sum(model(tokens), targets)
        write_encoded(tmp_path, "alone", chats, list("abcde"), texts=False)
        tokens, targets = WORKLOAD.open_split(tmp_path, "alone", plan).batch(np.arange(5), seed=None)
        alone = loss_sum(model(tokens), targets)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-4)
    assert abs(leaking - alone) > 0.01


@pytest.fixture
def refused(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    checkpointed = {**plan, "train": {**plan["train"], "activation_checkpointing": True}}
    return {
        "needs a CUDA GPU": _customize(plan, "lora", lora={"base_bits": 4}),
        "has no biases": _customize(plan, "bitfit"),
        "no head": _customize(plan, "probe"),
        "kept in the cache": _customize(checkpointed, "prefix"),
        "no module|does not fit": _customize(plan, "lora", lora={"targets": ["nothing"]}),
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU for few bits")
def test_methods_that_do_not_fit_are_refused(refused: dict[str, dict[str, Any]]) -> None:
    for told, plan in refused.items():
        with pytest.raises(RecipeError, match=told):
            build_customized(WORKLOAD, plan)


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(base: Path) -> None:
    with pytest.raises(RecipeError, match="more tokens than its model"):
        build_causal_model(base=base, scratch={"vocabulary": 401})
