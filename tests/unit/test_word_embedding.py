"""Words, phrases, pieces, rows, the model of contexts and its updates, metrics: each by itself."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recaster.core.errors import DataError
from recaster.core.files import read_json, write_json
from recaster.data.packed import PackedRecord
from recaster.data.token_shards import write_token_shard
from recaster.data.vector_files import read_vectors, write_binary, write_text
from recaster.data.word_corpus import PAIRS, VOCABULARY, find_phrases, write_corpus, write_pairs
from recaster.data.word_rows import COUNTS, SPLITS, WordRows, keep_shares
from recaster.distributed.gradients import gradient_norm, group_by_layout, scale_gradients
from recaster.evaluation.word_metrics import WORD_METRICS, by_set, rank_correlation
from recaster.evaluation.word_report import list_neighbours, solve_analogies
from recaster.models.word_contexts import FILLER, WordContexts, number_pieces, to_table_state
from recaster.models.word_table import (
    Lexicon,
    WordTable,
    hash_piece,
    join_phrases,
    list_pieces,
    split_words,
)
from recaster.recipe.words import Phrases, WordsShape
from recaster.training.lazy_adam import LazyAdam

_CONTEXTS = {
    "window": 2,
    "subsample": 0.0,
    "negatives": 5.0,
    "shared_negatives": 8,
    "flattening": 0.75,
}


def test_words_of_a_text() -> None:
    text = "The café's naïve_plan — 3 OWLS, 北京 and \u202bשלום\u202c 🙂\ufeff\x00 e\u0301!"
    words = split_words(text, keep_case=False)
    assert words == ["the", "café's", "naïve", "plan", "3", "owls", "北京", "and", "שלום", "é"]
    assert split_words("The OWL", keep_case=True) == ["The", "OWL"]
    assert split_words(" \n… 🙂", keep_case=False) == []


def test_phrases_join_from_left_to_right_pass_by_pass() -> None:
    words = ["in", "new", "york", "new", "york", "city"]
    once = join_phrases(words, [{"new_york", "york_new"}])
    assert once == ["in", "new_york", "new_york", "city"]
    assert join_phrases(words, [{"new_york"}, {"new_york_city"}]) == ["in", "new_york", "new_york_city"]
    assert join_phrases([], [{"a_b"}]) == []


@pytest.mark.parametrize(("score", "threshold"), [("npmi", 0.6), ("word2vec", 0.2)])
def test_pairs_that_stand_together_become_phrases(score: str, threshold: float) -> None:
    random = np.random.default_rng(0)
    documents = []
    for _ in range(300):
        words = [f"w{number}" for number in random.integers(0, 40, 8)]
        words[3:5] = ["san", "remo"] if random.random() < 0.5 else words[3:5]
        documents.append(words)
    section = Phrases.model_validate({"score": score, "threshold": threshold})
    assert find_phrases(documents, section) == [{"san_remo"}]


def test_pieces_and_their_buckets_are_those_of_fasttext() -> None:
    assert list(list_pieces("owl", shortest=3, longest=4)) == ["<ow", "<owl", "owl", "owl>", "wl>"]
    assert list(list_pieces("a", shortest=1, longest=2)) == ["<a", "a", "a>"]
    # FNV-1a over signed bytes; published test values of FNV-1a-32 for plain letters.
    assert hash_piece("a", 2**32) == 0xE40C292C
    assert hash_piece("foobar", 2**32) == 0xBF9CF968
    assert hash_piece("é", 2**32) != hash_piece("e", 2**32)


def _prepare(folder: Path, documents: list[list[int]], *, words: int, row_words: int) -> Path:
    flat = [word for document in documents for word in document]
    write_token_shard(
        folder,
        "train",
        rows=documents,
        labels=np.zeros(len(documents), dtype=np.int64),
        ids=[f"d{number}" for number in range(len(documents))],
    )
    np.save(folder / COUNTS, np.bincount(flat, minlength=words))
    write_json(folder / SPLITS, {"row_words": row_words})
    return folder


def test_rows_mark_documents_and_close_up_over_words_left_out(tmp_path: Path) -> None:
    _prepare(tmp_path, [[0, 1, 2], [], [3, 0, 0, 0], [1]], words=4, row_words=4)
    rows = WordRows(tmp_path, "train", _CONTEXTS)
    everything = np.arange(len(rows))
    words, counts = rows.batch(everything, seed=None)
    assert words.tolist() == [[~0, 1, 2, ~3], [0, 0, 0, ~1]] and counts.tolist() == [4, 4]
    assert rows.targets_in(everything) == 8 and rows.ids(everything) == ["d0@0", "d2@1"]
    thin = WordRows(tmp_path, "train", {**_CONTEXTS, "subsample": 1e-3})
    seen = {tuple(row) for seed in range(60) for row in thin.batch(everything, seed=seed)[0].tolist()}
    assert len(seen) > 5
    for row in seen:  # whatever is left of a document, its first word begins it
        kept = [word for word in row if word != FILLER]
        assert row[len(kept) :] == (FILLER,) * (len(row) - len(kept))
        assert all(word in (~0, 1, 2, ~1, ~2, ~3, 0) for word in kept)
        assert not {~1, ~2} & set(kept[1:]) or kept[-1] == ~1


def test_a_last_row_may_be_short(tmp_path: Path) -> None:
    rows = WordRows(_prepare(tmp_path, [[0, 1, 0]], words=2, row_words=2), "train", _CONTEXTS)
    assert len(rows) == 2 and rows.targets_in(np.array([1])) == 1
    assert rows.batch(np.array([0, 1]), seed=None)[0].tolist() == [[~0, 1], [0, FILLER]]


def test_subsampling_is_word2vecs() -> None:
    kept = keep_shares(np.array([9000, 999, 1]), 0.01)
    assert kept[2] == 1.0
    assert kept[0] == pytest.approx(math.sqrt(0.01 / 0.9) + 0.01 / 0.9)
    assert keep_shares(np.array([9, 1]), 0.0).tolist() == [1.0, 1.0]


def _model(*, cbow: bool = False, sparse: bool = False, words: int = 6, pieces: Any = None) -> WordContexts:
    torch.manual_seed(3)
    model = WordContexts(
        width=5,
        counts=torch.arange(1, words + 1),
        contexts=_CONTEXTS,
        cbow=cbow,
        sparse=sparse,
        pieces=pieces,
    )
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    return model


def _reference(model: WordContexts, row: list[int], *, cbow: bool) -> tuple[float, float]:
    """Nats and hits of one row, pair by pair."""
    vectors = [model.inputs(torch.tensor([word]))[0] for word in range(6)]
    outputs = model.outputs.weight
    spaced = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    random = torch.searchsorted(model.get_buffer("cumulated"), spaced).tolist()
    documents = np.cumsum([word < 0 for word in row]).tolist()
    words = [~word if word < 0 else word for word in row]
    near = {
        place: [
            other
            for other in range(len(row))
            if other != place and abs(other - place) <= 2 and documents[other] == documents[place]
        ]
        for place in range(len(row))
    }
    nats = hits = 0.0
    for place, others in near.items():
        if not others:
            continue
        if cbow:
            asked = [(torch.stack([vectors[words[o]] for o in others]).mean(0), [words[place]])]
        else:
            asked = [(vectors[words[place]], [words[o] for o in others])]
        for vector, targets in asked:
            against = torch.stack([vector @ outputs[one] for one in random])
            scores = torch.stack([vector @ outputs[one] for one in targets])
            nats += float(-torch.sigmoid(scores).log().sum().detach())
            nats += float(-torch.sigmoid(-against).log().sum().detach()) * 5.0 / 8 * len(targets)
            hits += float((scores > against.median()).float().mean())
    return nats, hits


@pytest.mark.parametrize("cbow", [False, True])
def test_matrix_products_give_what_pairs_give(cbow: bool) -> None:
    model = _model(cbow=cbow).eval()
    rows = [[~0, 1, 2, 3, ~4, 5, 1], [2, ~3, ~1, 0, 4]]
    batch = torch.tensor([rows[0], [*rows[1], FILLER, FILLER]])
    told = model(batch)
    for found, row in zip(told, rows, strict=True):
        assert found.tolist() == pytest.approx(_reference(model, row, cbow=cbow), rel=1e-4)
    wider = model(torch.cat([batch, torch.full((2, 3), FILLER)], 1))
    torch.testing.assert_close(wider, told)


def test_a_row_without_words_weighs_nothing() -> None:
    for cbow in (False, True):
        model = _model(cbow=cbow)
        told = model(torch.full((1, 3), FILLER))
        told[:, 0].sum().backward()
        assert told.tolist() == [[0.0, 0.0]]
        assert all(not bool(value.grad.any()) for value in model.parameters() if value.grad is not None)


def test_sparse_gradients_are_the_dense_ones() -> None:
    batch = torch.tensor([[~0, 1, 1, 2]])
    norms, gradients = [], []
    for sparse in (False, True):
        model = _model(sparse=sparse)
        torch.manual_seed(7)
        model(batch)[:, 0].sum().backward()
        groups = group_by_layout(model.parameters())
        norms.append(float(gradient_norm(groups, None, whole=False)))  # type: ignore[arg-type] # not asked
        scale_gradients(groups, torch.tensor(0.5))
        gradients.append([_dense(value.grad) for value in model.parameters()])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def _dense(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient.to_dense() if gradient.is_sparse else gradient


def test_lazy_adam_is_torchs_sparse_adam() -> None:
    start = torch.randn(5, 3)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    first = LazyAdam([ours], lr=0.1, betas=(0.9, 0.999), eps=1e-8)
    second = torch.optim.SparseAdam([theirs], lr=0.1)
    for rows in ([0, 3], [3, 3, 1], [0]):
        values = torch.randn(len(rows), 3)
        for parameter in (ours, theirs):
            parameter.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, (5, 3))
        first.step()
        second.step()
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[2], start[2]) and torch.equal(ours[4], start[4])


def test_lazy_adam_on_dense_gradients_is_adam_and_decays_what_it_moves() -> None:
    start = torch.randn(4, 3)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    first = LazyAdam([ours], lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    second = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        ours.grad = theirs.grad = torch.randn(4, 3)
        first.step()
        second.step()
    torch.testing.assert_close(ours, theirs)
    before = ours.detach().clone()
    ours.grad = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.zeros(1, 3), (4, 3))
    first.step()
    assert torch.equal(ours[0], before[0]) and not torch.equal(ours[1], before[1])


def test_a_words_vector_is_the_mean_with_its_pieces_and_unknown_words_have_one_too() -> None:
    words, subwords = ["owl", "owls"], {"shortest": 3, "longest": 4, "buckets": 100}
    model = _model(words=2, pieces=number_pieces(words, subwords))
    table = WordTable(words=2, width=5, subwords=subwords)
    table.load_state_dict(to_table_state(model))
    weight = model.get_parameter("inputs.table.weight")
    own = [0, *(2 + hash_piece(piece, 100) for piece in list_pieces("owl", shortest=3, longest=4))]
    torch.testing.assert_close(table.vectors.weight[0], weight[own].mean(0))
    lexicon = Lexicon(table, {"words": words, "phrases": [], "keep_case": False})
    found = lexicon.find("owlet")
    assert found is not None and bool(found.any())
    alone = WordTable(words=2, width=5, subwords=None)
    assert Lexicon(alone, {"words": words, "phrases": [], "keep_case": False}).find("owlet") is None


def _lexicon() -> Lexicon:
    words = ["king", "queen", "man", "woman", "apple"]
    table = WordTable(words=5, width=3, subwords=None)
    rows = [[1, 0, 1], [1, 1, 1], [1, 0, 0], [1, 1, 0], [-1, 0, 0.1]]
    table.vectors.weight.data = torch.tensor(rows)
    return Lexicon(table, {"words": words, "phrases": [["apple_pie"]], "keep_case": False})


def test_neighbours_texts_and_analogies() -> None:
    lexicon = _lexicon()
    vector, known = lexicon.embed("King and QUEEN!")
    assert known == ["king", "queen"] and vector.tolist() == [1.0, 0.5, 1.0]
    near = lexicon.nearest(vector, 10, leave_out=known)
    assert [word for word, _ in near] == ["woman", "man", "apple"]
    assert lexicon.embed("nothing here")[1] == []
    assert lexicon.nearest(torch.zeros(3), 3) == []
    rows = solve_analogies(
        lexicon,
        [["kin", "man", "woman", "king", "queen"], ["kin", "man", "woman", "king", "apple"], ["b", *"wxyz"]],
    )
    assert rows[1] == {"set": "kin", "accuracy": 0.5, "known": 2, "analogies": 2}
    assert rows[0] == {"set": "b", "accuracy": None, "known": 0, "analogies": 1}
    assert next(row["word"] for row in list_neighbours(lexicon, 3)) == "king"


def test_correlation_is_of_ranks_over_known_pairs_by_set() -> None:
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 100, 101])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9486833)
    assert math.isnan(rank_correlation(np.array([1.0, 2]), np.array([1.0, 2])))
    assert math.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    rows = [[0, 0.1, 1], [0, 0.2, 1], [0, 0.3, 1], [0, 0.9, 0], [1, 0.3, 1], [1, 0.2, 1], [1, 0.1, 1]]
    predictions, targets = np.array(rows), np.array([1.0, 2, 3, 0, 5, 6, 7])
    assert [row[1:] for row in by_set(predictions, targets)] == [(1.0, 3, 4), (-1.0, 3, 3)]
    assert WORD_METRICS["spearman"](predictions, targets) == pytest.approx(0.0)
    assert WORD_METRICS["coverage"](predictions, targets) == pytest.approx(6 / 7)


@pytest.mark.parametrize("write", [write_text, write_binary])
def test_vectors_come_back_from_a_file(write: Any, tmp_path: Path) -> None:
    words = ["owl", "北京", "new_york", "5"]
    vectors = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    write(tmp_path / "v", words, vectors)
    found, rows = read_vectors(tmp_path / "v")
    assert found == words and np.array_equal(rows, vectors)
    (tmp_path / "v.gz").write_bytes(gzip.compress((tmp_path / "v").read_bytes()))
    some, row = read_vectors(tmp_path / "v.gz", wanted={"北京", "other"})
    assert some == ["北京"] and np.array_equal(row, vectors[1:2])


def test_gloves_form_has_no_first_line_and_may_have_spaces_in_words(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("owl 1 2.5 -3e-1\n. . . 4 5 6\nowl 7 8 9\n", encoding="utf-8")
    found, rows = read_vectors(tmp_path / "g.txt")
    assert found == ["owl", ". . ."] and rows[0].tolist() == pytest.approx([1, 2.5, -0.3])


@pytest.mark.parametrize(
    "content",
    [
        b"owl 1 2\nbat 1\n",
        b"owl 1 x\n",
        b"o\xffl 1 2\n",
        b"2 3\nowl " + np.ones(3, dtype="<f4").tobytes() + b"\nbat \x00\x00\x80\x3f",
        b"9 300\n" + bytes(range(128, 256)) * 60,
    ],
    ids=["too few", "no number", "no text", "cut", "no words"],
)
def test_a_damaged_file_of_vectors_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(DataError, match="no file of word vectors"):
        read_vectors(tmp_path / "v")


def _record(number: int, text: str) -> PackedRecord:
    return PackedRecord(
        id=f"test/a.txt:{number}", label="", split="", group="", pixels=np.zeros(0, np.uint8), text=text
    )


def test_pairs_and_analogies_of_a_test_split(tmp_path: Path) -> None:
    records = [_record(1, "Tiger\tcat\t7.35"), _record(2, ": family\nking queen man woman\n")]
    assert write_pairs(tmp_path, records, keep_case=False) == {"pairs": 1, "analogies": 1}
    told = read_json(tmp_path / PAIRS)
    assert told["pairs"] == [["a", "tiger", "cat", 7.35]]
    assert told["analogies"] == [["a", "king", "queen", "man", "woman"]]


@pytest.mark.parametrize("line", ["tiger cat", "tiger cat high", "tiger cat nan", "a b c d e"])
def test_a_line_that_is_no_pair_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a judged pair") as caught:
        write_pairs(tmp_path, [_record(7, line)], keep_case=False)
    assert "a.txt:7" in str(caught.value)
    with pytest.raises(DataError, match="no pair of words"):
        write_pairs(tmp_path, [_record(1, "a b c d")], keep_case=False)


def test_words_too_rare_have_no_vector_and_a_corpus_without_words_is_refused(tmp_path: Path) -> None:
    shape = WordsShape.model_validate({"min_count": 2})
    splits = {"train": [_record(1, "a b a b c"), _record(2, "🙂 …")], "validation": [_record(3, "b z")]}
    facts = write_corpus(tmp_path, splits, shape, vocabulary=300)
    assert read_json(tmp_path / VOCABULARY)["words"] == ["a", "b"]
    assert facts["known_words"] == {"train": 4, "validation": 1} and facts["left_out_words"] == 1
    with pytest.raises(DataError, match="no word that has a vector"):
        write_corpus(tmp_path, {**splits, "validation": [_record(3, "z")]}, shape, vocabulary=300)
    with pytest.raises(DataError, match="frequent enough"):
        write_corpus(tmp_path, {**splits, "train": [_record(1, "a b c")]}, shape, vocabulary=300)
