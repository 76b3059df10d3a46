"""Plain text as documents, rows and gaps."""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from recaster.core.errors import DataError, RecipeError
from recaster.data.document_shards import (
    open_document_tokenizer,
    sum_by_document,
    write_document_shard,
)
from recaster.data.document_sources import read_documents
from recaster.data.marked_rows import GapRows, count_gaps
from recaster.data.token_shards import make_token_shard, read_token_shard
from recaster.data.tokenizers import train_byte_pairs
from recaster.models.causal_models import CausalModel, build_causal_model
from recaster.models.losses import NO_TARGET
from recaster.models.masked_models import MaskedModel, build_masked_model
from recaster.models.packed_rows import check_apart
from recaster.models.token_marks import place_marks
from recaster.recipe.data import CorpusShape
from recaster.workloads.language_modelling import _check_architecture

_PADDING, _MASK, _SPECIAL, _VOCABULARY = 0, 4, [2, 3], 500
_TEXTS = ["The pump is checked at six.", "Ünïcode 😀 too", "a b c d e f g h i j k l m n o p q r s t u v", "x"]


def _gap_rows(rows: list[list[int]], fraction: float = 0.15) -> GapRows:
    labels = np.array([count_gaps(row, [*_SPECIAL, _PADDING], fraction) for row in rows])
    shard = make_token_shard(rows, labels=labels, ids=[str(number) for number in range(len(rows))])
    return GapRows(shard, padding=_PADDING, mask=_MASK, special=_SPECIAL, vocabulary=_VOCABULARY)


def test_gaps_are_masked_replaced_or_kept_by_their_shares() -> None:
    rows = [[2, *range(100, 300), 3] for _ in range(200)]
    given, targets = _gap_rows(rows).batch(np.arange(200), seed=11)
    tokens = torch.tensor(rows)
    hidden, seen = given < 0, given.where(given >= 0, ~given)
    assert (hidden.sum(1) == 30).all() and (targets != NO_TARGET).all()
    assert torch.equal(tokens[hidden].view(200, 30), targets)
    assert torch.equal(seen[~hidden], tokens[~hidden]) and not hidden[:, [0, -1]].any()
    masked = (seen[hidden] == _MASK).float().mean()
    kept = (seen[hidden] == tokens[hidden]).float().mean()
    # 6,000 draws: three standard deviations are 0.016 and 0.012
    assert abs(masked - 0.8) < 0.016 and abs(kept - 0.1) < 0.012
    others = seen[hidden][(seen[hidden] != _MASK) & (seen[hidden] != tokens[hidden])]
    assert not set(others.tolist()) & {*_SPECIAL, _PADDING, _MASK} and others.max() > 400
    assert hidden.float().mean(0)[1:-1].min() > 0.05  # no place is spared


def test_gaps_depend_on_seed_and_row_alone() -> None:
    data = _gap_rows([[2, *range(10, 10 + 3 * number), 3] for number in range(1, 9)])
    rows = np.array([5, 0, 7, 3])
    whole, targets = data.batch(rows, seed=3)
    for place, row in enumerate(rows.tolist()):
        alone, wanted = data.batch(np.array([row]), seed=3)
        assert torch.equal(whole[place, : alone.shape[1]], alone[0])
        assert torch.equal(targets[place, : wanted.shape[1]], wanted[0])
        assert (targets[place, wanted.shape[1] :] == NO_TARGET).all()
    assert not torch.equal(whole, data.batch(rows, seed=4)[0])
    assert torch.equal(data.batch(rows, seed=None)[0], data.batch(rows, seed=None)[0])
    assert data.targets_in(rows) == int((targets != NO_TARGET).sum()) == int((whole < 0).sum())


def test_a_row_has_at_least_one_gap_where_it_can() -> None:
    assert count_gaps([2, 50, 3], _SPECIAL, 0.15) == 1
    assert count_gaps([2, 3], _SPECIAL, 0.15) == 0
    assert count_gaps(list(range(100, 140)), _SPECIAL, 0.15) == 6


def test_places_of_marks() -> None:
    plain, chosen = place_marks(torch.tensor([[~5, 6, ~7, 0], [1, ~2, 3, 4]]))
    assert plain.tolist() == [[5, 6, 7, 0], [1, 2, 3, 4]]
    assert chosen[:, 0].tolist() == [0, 1] and chosen[0].tolist() == [0, 2]
    assert place_marks(torch.tensor([[1, 2]]))[1].tolist() == [[0, 1]]


def _shape(**changes: Any) -> CorpusShape:
    return CorpusShape.model_validate({"objective": "causal", "max_tokens": 16, **changes})


def test_documents_of_a_text_file(tmp_path: Path) -> None:
    text = "one\ntwo\n\n\nthree\n\n  \nfour\nfive\n"
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(text.encode()))
    wanted = {
        "line": ["one", "two", "three", "four", "five"],
        "paragraph": ["one\ntwo", "three", "four\nfive"],
        "file": ["one\ntwo\nthree\nfour\nfive"],
    }
    for document, texts in wanted.items():
        for name in ("a.txt", "a.en.gz"):
            found = list(read_documents(tmp_path / name, document=document) or ())
            assert [record.text for record in found] == texts
            assert all(record.problem == "" and record.label is None for record in found)
            assert len({record.id for record in found}) == len(found)


def test_documents_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z.txt").write_bytes(b"fine\nb\xffroken\n")
    (tmp_path / "a.jsonl").write_text('{"text": "first", "label": "x"}\n{"txt": 1}\n')
    for name in ("picture.png", "README.md"):  # .md is no language, as .en is
        (tmp_path / name).write_bytes(b"not read")
    found = list(read_documents(tmp_path, document="line") or ())
    assert [record.id for record in found] == [
        "a.jsonl/a.jsonl:1",
        "a.jsonl/a.jsonl:2",
        "b/z.txt:1",
        "b/z.txt:2",
    ]
    assert [bool(record.problem) for record in found] == [False, True, False, True]
    assert found[0].label is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no texts"):
        list(read_documents(tmp_path / "empty", document="line") or ())
    assert read_documents(tmp_path / "picture.png", document="line") is None


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens") / "tokenizer"
    train_byte_pairs(_TEXTS, vocabulary=300, folder=folder, keep_case=True)
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_rows_hold_all_of_the_documents(
    tokenizer_folder: Path, tmp_path: Path, objective: str, packed: bool
) -> None:
    tokenizer = open_document_tokenizer(tokenizer_folder, masked=objective == "masked")
    records: Any = [SimpleNamespace(id=f"d{number}", text=text) for number, text in enumerate(_TEXTS)]
    shape = _shape(objective=objective, packed=packed, max_tokens=12)
    facts = write_document_shard(tmp_path, "train", records, tokenizer=tokenizer, shape=shape)
    shard = read_token_shard(tmp_path, "train")
    assert facts["rows"] == len(shard.ids) == len(set(shard.ids)) and shard.lengths.max() <= 12
    held: list[int] = []
    for row in range(facts["rows"]):
        tokens = np.array(shard.tokens[shard.offsets[row] : shard.offsets[row + 1]])
        assert ((tokens < 0)[:-1].all() and tokens[-1] >= 0) if objective == "causal" else (tokens >= 0).all()
        plain = np.where(tokens < 0, ~tokens, tokens).tolist()
        assert plain[0] == tokenizer.before[0]
        held += plain[1:-1] if objective == "masked" else plain[1:]
    wanted = [tokenizer.inner.encode_plain(text) for text in _TEXTS]
    ended = packed or objective == "causal"
    whole = [token for tokens in wanted for token in (*tokens, *([tokenizer.end] if ended else []))]
    # A last row of nothing but the token between documents has nothing to hide.
    assert held == whole[: len(held)] and whole[len(held) :] in ([], [tokenizer.end])
    assert facts["nothing_learned"] == (held != whole)
    if packed:
        assert (shard.lengths == 12).sum() >= len(shard.lengths) - 1
    assert facts["learned_tokens"] == int(shard.labels.sum()) > 0


def test_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not for the objective masked"):
        _check_architecture("scratch:small-decoder", "masked")
    with pytest.raises(ValueError, match="masked_fraction belongs"):
        _shape(masked_fraction=0.2)
    with pytest.raises(ValueError, match="apart belongs"):
        _shape(apart=True)
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({"[PAD]": 0, "a": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(RecipeError, match="names no mask_token"):
        open_document_tokenizer(tmp_path, masked=True)
    with pytest.raises(RecipeError, match="names no eos_token"):
        open_document_tokenizer(tmp_path, masked=False)


def _build(objective: str) -> CausalModel | MaskedModel:
    scratch = {
        "vocabulary": 50,
        "tokens": 32,
        "width": 32,
        "depth": 2,
        "dropout": 0.1,
        "padding": 0,
        "end": 3,
    }
    torch.manual_seed(3)
    model: CausalModel | MaskedModel
    if objective == "causal":
        model = build_causal_model(base=None, scratch=scratch)
    else:
        model = build_masked_model(base=None, scratch=scratch)
    return model.eval()


_ROWS = torch.tensor([[2, 10, 11, 12, 3, 20, 21, 3, 30, 3], [2, 13, 14, 15, 3, 20, 21, 3, 30, 3]])


@pytest.mark.parametrize("objective", ["causal", "masked"])
@torch.no_grad()
def test_documents_of_a_row_are_kept_apart(objective: str) -> None:
    model = _build(objective)
    check = partial(check_apart, model, model.network, end=3, where="data.corpus.apart")
    with pytest.raises(RecipeError, match="does not keep the documents of a row apart"):
        check()
    seen = model(_ROWS)
    assert not torch.allclose(seen[0, 5:], seen[1, 5:], atol=1e-4)
    model.end = 3
    check()
    apart = model(_ROWS)
    torch.testing.assert_close(apart[0, 5:], apart[1, 5:])
    assert not torch.allclose(apart[0, 1:4], apart[1, 1:4], atol=1e-4)
    # What fills a row up changes nothing.
    padded = torch.nn.functional.pad(_ROWS, (0, 4), value=0)
    torch.testing.assert_close(model(padded)[:, :10], apart)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model(padded)).all()


@torch.no_grad()
def test_a_causal_document_is_foreseen_as_if_alone() -> None:
    """Rotary positions count distances alone, so a row's place makes no difference."""
    model = _build("causal")
    alone = model(torch.tensor([[3, 20, 21]]))
    model.end = 3
    torch.testing.assert_close(model(_ROWS)[:, 4:7], alone.expand(2, -1, -1))


def test_rows_of_a_document_are_summed(tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = open_document_tokenizer(tokenizer_folder, masked=False)
    records: Any = [SimpleNamespace(id=f"d{number}", text=text) for number, text in enumerate(_TEXTS)]
    write_document_shard(tmp_path, "test", records, tokenizer=tokenizer, shape=_shape(max_tokens=12))
    shard = read_token_shard(tmp_path, "test")
    assert len(shard.ids) > len(_TEXTS)
    found = np.stack([np.ones(len(shard.ids)), shard.labels.astype(float)], axis=1)
    sums, counts = sum_by_document(tmp_path, "test", found, shard.labels)
    ids = [row_id.split("#")[0] for row_id in shard.ids]
    order = list(dict.fromkeys(ids))
    assert sums[:, 0].tolist() == [ids.count(document) for document in order]
    assert sums[:, 1].tolist() == counts.tolist() and counts.sum() == shard.labels.sum()
