"""The convolutional and recurrent text classifiers, and their tokenizer of words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from recaster.data.tokenizers import find_unknown, open_tokenizer, train_classifier_tokens
from recaster.models.text_networks import TextNetwork, build_model

_TEXTS = ["The film is good, is it?", "the film was BAD", "a good film"]


def _build(network: str, **changes: int) -> TextNetwork:
    torch.manual_seed(0)
    arguments = {"vocabulary": 50, "width": 12, "depth": 2, "labels": 4, "padding": 0, **changes}
    return build_model(network=network, dropout=0.0, **arguments).eval()


@pytest.mark.parametrize("network", ["kim-cnn", "lstm", "gru"])
def test_what_fills_up_changes_nothing(network: str) -> None:
    model, random = _build(network), torch.Generator().manual_seed(1)
    rows = [torch.randint(1, 50, (length,), generator=random) for length in (1, 2, 5, 11, 30)]
    filled = torch.nn.utils.rnn.pad_sequence([*rows, torch.ones(40, dtype=torch.long)], batch_first=True)
    with torch.no_grad():
        together = model(filled)
        for row, wanted in zip(rows, together[:-1], strict=True):
            torch.testing.assert_close(model(row[None])[0], wanted, rtol=1e-4, atol=1e-5)
    assert together.shape == (6, 4) and together[:5].std(0).min() > 1e-4


@pytest.mark.parametrize("network", ["kim-cnn", "lstm", "gru"])
def test_all_weights_learn_and_order_matters(network: str) -> None:
    model = _build(network)
    tokens = torch.tensor([[5, 6, 7, 8, 9, 10], [10, 9, 8, 7, 6, 5]])
    logits = model.train()(tokens)
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    logits.square().sum().backward()
    assert [name for name, value in model.named_parameters() if not value.grad.abs().sum() > 0] == []
    assert torch.equal(model.decide(model.encode(tokens)), model(tokens))


def test_the_recurrent_one_is_torch_s_bidirectional_lstm() -> None:
    """One layer's states, against torch's own over the unpadded text."""
    model = _build("lstm", depth=1)
    both = torch.nn.LSTM(12, 12, batch_first=True, bidirectional=True)
    body = model.body
    state = body.onward[0].state_dict()  # type: ignore[union-attr,index]
    back = body.backward_[0].state_dict()  # type: ignore[union-attr,index]
    both.load_state_dict({**state, **{f"{name}_reverse": value for name, value in back.items()}})
    tokens = torch.tensor([[3, 4, 5, 6, 7]])
    with torch.no_grad():
        states = both(model.vectors(tokens))[0]
        weights = body.attend(states).softmax(1)  # type: ignore[union-attr,operator]
        torch.testing.assert_close(model.encode(tokens), (weights * states).sum(1))


def _train(
    texts: Sequence[str], kind: str, folder: Path, *, vocabulary: int = 9, framed: bool = False
) -> None:
    train_classifier_tokens(texts, kind=kind, framed=framed, vocabulary=vocabulary, folder=folder)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("characters", ["g", "o", "o", "d", " ", "f", "i", "l", "m", "!"]),
        ("words", ["good", "film", "!"]),
        ("byte-pairs", None),
        ("unigram", None),
    ],
)
def test_each_tokenizer_is_the_same_again_and_frames_texts(
    kind: str, told: list[str] | None, tmp_path: Path
) -> None:
    texts = [f"{text} {number} !" for number, text in enumerate(_TEXTS * 5)]
    for name in ("one", "other"):
        _train(texts, kind, tmp_path / name, vocabulary=300, framed=True)
    one, other = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "other"))
    tokenizer, again = (open_tokenizer(tmp_path / name) for name in ("one", "other"))
    tokens = tokenizer.encode("GOOD film!")
    if kind == "unigram":  # whose trainer numbers single letters otherwise each time
        assert tokenizer.names(tokens) == again.names(again.encode("GOOD film!"))
    else:
        assert one == other
    assert (tokens[0], tokens[-1]) == tuple(tokenizer.number_of(name) for name in ("[CLS]", "[SEP]"))
    assert find_unknown(tmp_path / "one" / "tokenizer.json") == (1 if kind != "byte-pairs" else None)
    assert tokenizer.named("unk_token") not in tokens and tokenizer.padding == tokenizer.number_of("[PAD]")
    if told:
        assert tokenizer.names(tokens[1:-1]) == [text.strip() for text in told]
    else:
        assert "".join(tokenizer.names(tokens[1:-1])).replace(" ", "").replace("▁", "") == "goodfilm!"


def test_words_are_numbered_by_how_often_they_are(tmp_path: Path) -> None:
    _train(_TEXTS, "words", tmp_path / "words")
    told = json.loads((tmp_path / "words" / "tokenizer.json").read_text())["model"]["vocab"]
    ranked = sorted(told, key=told.__getitem__)
    assert ranked == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "good", "is", "the"]
    tokenizer = open_tokenizer(tmp_path / "words")
    assert tokenizer.padding == 0 and tokenizer.size == 9
    assert tokenizer.encode("The GOOD film, unseen") == [8, 6, 5, 1, 1]
    _train(_TEXTS[::-1], "words", tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (
        tmp_path / "words" / "tokenizer.json"
    ).read_bytes()
