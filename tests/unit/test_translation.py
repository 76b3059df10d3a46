"""Translation: bad files, the contract's facts, tokens of both sides, networks, search, metrics."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from recaster.core.errors import DataError, RecipeError
from recaster.data.contract_pairs import describe_pair
from recaster.data.pair_shards import (
    Pair,
    expand_pairs,
    group_pairs,
    open_pair_rows,
    read_held_out,
    write_about,
    write_pair_shard,
)
from recaster.data.pair_sources import dump_sides, parse_sides, read_pairs
from recaster.data.pair_tokens import PairTokenizer
from recaster.data.synthetic_pairs import make_pairs
from recaster.data.tokenizers import train_joint
from recaster.evaluation.translation_metrics import bleu, chrf, describe_translations, read_translations
from recaster.models.seq2seq_models import build_seq2seq, network_arguments, pegasus_config
from recaster.models.seq2seq_search import split_rows, write_beams, write_tokens
from recaster.recipe.pairs import PairShape
from recaster.training.sampler import Sampler

_SHAPE = PairShape(directions=["en-de"], max_tokens=12)
_TEXTS = [
    "Zwei Hunde rennen am Strand.",
    "two dogs run on the beach.",
    "שלום עולם",
    "🐶 runs",
    "a",
    "Straße!",
]
_SIZE = {"width": 16, "depth": 2, "dropout": 0.1, "tokens": 40}
_ABOUT = {"vocabulary": 40, "padding": 0, "end": 2}
ARCHITECTURES = ("transformer", "bahdanau", "luong")


def _record(text: str | None) -> dict[str, Any]:
    return {"text": text}


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_parallel_files_keep_their_lines_together(tmp_path: Path) -> None:
    _write(tmp_path / "t.en", "\ufeffone\r\n\nthree\n".encode())
    _write(tmp_path / "t.de", b"eins\nzwei\n\xff\xfe\n")
    found = list(read_pairs(tmp_path / "t.*", _SHAPE) or ())
    assert [parse_sides(record.text or "")["en"] for record in found] == ["one", "", "three"]
    assert [record.problem for record in found] == ["", "", "de: not UTF-8 at byte 0"]
    assert [record.id for record in found] == ["t:1", "t:2", "t:3"]
    assert describe_pair(_record(found[1].text))["empty_sides"] == 1


def test_unequal_parallel_files_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "t.en", b"one\ntwo\n")
    _write(tmp_path / "t.de", b"eins\n")
    with pytest.raises(DataError, match=r"t\.en 2, t\.de 1"):
        list(read_pairs(tmp_path / "t.*", _SHAPE) or ())


def test_tables_and_json_lines_have_a_column_a_language(tmp_path: Path) -> None:
    table = _write(tmp_path / "t.csv", b'id,en,de\na,"one, ""1""\nmore",eins\nb,two\n')
    first, second = read_pairs(table, _SHAPE) or ()
    assert parse_sides(first.text or "") == {"en": 'one, "1"\nmore', "de": "eins"}
    assert second.problem == "has another number of columns than the header"
    with pytest.raises(DataError, match="a column for none of the recipe's languages"):
        list(read_pairs(_write(tmp_path / "u.tsv", b"id\ttext\na\tone\n"), _SHAPE) or ())
    lines = b'{"en": "one", "de": 1}\n{"en": "two", "fr": "deux"}\n{"fr": "trois"}\nno\n'
    odd, alone, none, broken = read_pairs(_write(tmp_path / "t.jsonl", lines), _SHAPE) or ()
    assert odd.problem == "de is int, wanted a string"
    assert not alone.problem and describe_pair(_record(alone.text))["sides"] == 1
    assert none.problem == "has a text in none of en, de"
    assert broken.problem.startswith("not JSON")
    assert describe_pair(_record(broken.text))["sides"] is None


def test_facts_tell_bad_pairs() -> None:
    def facts(source: str, target: str) -> dict[str, Any]:
        return describe_pair(_record(dump_sides({"en": source, "de": target})))

    assert facts("a\0b", "c")["control_characters"] == 1
    assert facts("a" * 1_000_000, "b")["characters"] == 1_000_000
    assert facts("word " * 20, "ja")["length_ratio"] > 6
    assert facts("the same words", "The same words!")["copied_fraction"] == 1.0
    assert facts("write to anna@example.org", "schreib")["personal_data"] == 1
    assert facts("🐶 שלום", "שלום 🐶")["control_characters"] == 0


@pytest.mark.parametrize(
    ("directions", "told"),
    [(["en"], "no direction"), (["en-en"], "no direction"), (["a-b", "a-b"], "repeat")],
)
def test_directions_are_checked(directions: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told if told != "repeat" else "no direction|repeat"):
        PairShape(directions=directions, max_tokens=8)
    with pytest.raises(ValueError, match="prefixes are for directions"):
        PairShape(directions=["en-de"], max_tokens=8, prefixes={"de-en": "x"})


def test_records_that_share_a_side_are_one_group() -> None:
    texts = [("a dog", "ein Hund"), ("A dog!", "der Hund"), ("cat", "Katze"), ("the dog", "Der Hund.")]
    groups = group_pairs([dump_sides({"en": one, "de": other}) for one, other in texts])
    assert groups.tolist() == [0, 0, 2, 0]


def test_directions_become_examples() -> None:
    records: Any = [SimpleNamespace(id="a", text=dump_sides({"en": "x", "de": "y"}))]
    found = expand_pairs(records, ["en-de", "de-en", "en-fr"])
    assert [(pair.id, pair.source, pair.target) for pair in found] == [
        ("a/en-de", "x", "y"),
        ("a/de-en", "y", "x"),
    ]


def _tokenizer(folder: Path, kind: str = "byte-pairs") -> PairTokenizer:
    texts = [*_TEXTS, *(text for r in make_pairs() for text in parse_sides(r.text or "").values())]
    train_joint(texts, vocabulary=400, kind=kind, tags=["<en>", "<de>"], folder=folder)
    return PairTokenizer(folder, {})


@pytest.mark.parametrize("kind", ["byte-pairs", "unigram"])
def test_tokens_of_both_sides(tmp_path: Path, kind: str) -> None:
    tokenizer = _tokenizer(tmp_path / "tokenizer", kind)
    for text in _TEXTS:
        source = tokenizer.source(text, "de-en", longest=200)
        assert source[0] == tokenizer.start("en-de") and source[-1] == tokenizer.end
        assert tokenizer.read(tokenizer.target(text, "de-en", longest=200)) == text
    cut = tokenizer.source("word " * 90, "en-de", longest=10)
    assert len(cut) == 10 and cut[-1] == tokenizer.end
    with pytest.raises(RecipeError, match="not trained on this language"):
        tokenizer.source("a", "fr-en", longest=9)


def test_shards_hold_both_sides(tmp_path: Path) -> None:
    tokenizer = _tokenizer(tmp_path / "tokenizer")
    pairs = [Pair(id=f"p{n}", direction="en-de", source=text, target=text) for n, text in enumerate(_TEXTS)]
    pairs.append(Pair(id="long", direction="en-de", source="word " * 90, target="kurz"))
    train, test = (
        write_pair_shard(
            tmp_path, name, pairs, tokenizer=tokenizer, shape=PairShape(directions=["en-de"], max_tokens=40)
        )
        for name in ("train", "test")
    )
    assert train["rows"] == len(pairs) - 1 and test["rows"] == len(pairs)
    assert train["truncated"] == test["truncated"] == 1 / len(pairs)
    write_about(tmp_path, tokenizer, tmp_path / "tokenizer", {"max_tokens": 40})
    rows = open_pair_rows(tmp_path, "train")
    inputs, targets = rows.batch(np.arange(len(rows)), seed=None)
    source, given = split_rows(inputs, tokenizer.inner.padding)
    for row, pair in enumerate(pairs[:-1]):
        assert tokenizer.read(source[row].tolist()) == tokenizer.read(given[row].tolist()) == pair.source
        learned = targets[row][targets[row] >= 0].tolist()
        assert tokenizer.read(learned) == pair.target and learned[-1] == tokenizer.end
        assert rows.targets_in(np.array([row])) == len(learned) == rows.lengths[row, 1]
    held = read_held_out(tmp_path, "test", tokenizer, tmp_path / "tokenizer")
    assert sorted(pair.id for pair in held.pairs) == sorted(pair.id for pair in pairs)
    other = _tokenizer(tmp_path / "other", "unigram")
    again = read_held_out(tmp_path, "test", other, tmp_path / "other")
    assert again.pairs == held.pairs and (again.counts == held.counts).all()


def test_a_tokenizer_that_knows_nothing_is_refused(tmp_path: Path) -> None:
    train_joint(["abc"] * 3, vocabulary=50, kind="unigram", tags=["<en>", "<de>"], folder=tmp_path / "t")
    pairs = [Pair(id="p", direction="en-de", source="שלום עולם שלום", target="Ω≈ç√∫ ß∂")]
    with pytest.raises(DataError, match="does not know these texts"):
        write_pair_shard(tmp_path, "train", pairs, tokenizer=PairTokenizer(tmp_path / "t", {}), shape=_SHAPE)


def test_batches_are_made_by_both_lengths() -> None:
    chance = np.random.default_rng(0)
    source = chance.integers(4, 30, 4000)
    lengths = np.stack([source, np.maximum(2, source + chance.integers(-4, 5, 4000))], 1)
    sampler = Sampler(samples=4000, batch_size=32, seed=1, lengths=lengths)
    plain = Sampler(samples=4000, batch_size=32, seed=1, lengths=lengths.sum(1))
    order = sampler.order(0)
    assert sorted(order.tolist()) == list(range(4000))
    assert (sampler.order(0) == order).all() and not (sampler.order(1) == order).all()

    def waste(own: Sampler) -> float:
        batches = [lengths[own.rows(own.order(0), step)] for step in range(own.steps_per_epoch)]
        return 1 - lengths.sum() / sum(len(one) * one.max(0).sum() for one in batches)

    assert waste(sampler) == pytest.approx(sampler.filled_up) and sampler.filled_up < 0.1 < waste(plain)


def _network(architecture: str) -> Any:
    torch.manual_seed(1)
    arguments = network_arguments(architecture, _SIZE, _ABOUT)
    return build_seq2seq(base=None, architecture=architecture, arguments=arguments).eval()


_ROWS = torch.tensor([[5, 6, 7, 2, ~3, ~9, ~10, 2, 0], [5, 6, 7, 8, 9, 2, ~3, ~11, 2]])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_writing_sees_what_training_sees(architecture: str) -> None:
    """Token after token with a cache, alone or with others: the logits are those of the whole row."""
    network = _network(architecture)
    logits = network(_ROWS)
    source, given = split_rows(_ROWS, 0)
    memory, past = network.read(source)
    for place in range(given.shape[1]):
        told, past = network.advance(given[:, place], memory, past)
        torch.testing.assert_close(told, logits[:, place], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(_ROWS[:1, :8]), logits[:1], rtol=1e-4, atol=1e-5)
    shares = network.attention(_ROWS)
    torch.testing.assert_close(shares.sum(2), torch.ones(2, 3))
    assert (shares[0, :, 4:] == 0).all()  # what fills up


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_a_search_is_a_search_of_each_source(architecture: str) -> None:
    network = _network(architecture)
    source, starts = split_rows(_ROWS, 0)[0], torch.tensor([3, 3])
    options: dict[str, Any] = {"beams": 3, "length_penalty": 1.0, "longest": 8}
    both = write_beams(network, source, starts, **options)
    alone = write_beams(network, source[:1, :4], starts[:1], **options)
    assert both[:1] == alone
    drawn = [
        write_tokens(network, source, starts, longest=8, temperature=2.0, seed=seed) for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    likeliest = write_tokens(network, source, starts, longest=8)
    assert write_tokens(network, source, starts, longest=8, temperature=1.0, top_p=1e-6) == likeliest
    assert write_beams(network, source, starts, beams=1, length_penalty=1.0, longest=8) == likeliest


@pytest.mark.parametrize(("beams", "penalty"), [(4, 1.0), (4, 0.0), (2, 0.6), (1, 1.0)])
@torch.no_grad()
def test_transformers_reads_the_weights_and_writes_the_same(beams: int, penalty: float) -> None:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    network = _network("transformer")
    for value in network.model.decoder.parameters():
        value.mul_(1.6)
    network.model.shared.weight[2] *= 2.0  # the end: fresh weights would never come to it
    arguments = network_arguments("transformer", _SIZE, _ABOUT)
    told = pegasus_config(arguments, start=3)
    config = AutoConfig.for_model(**told)
    theirs: Any = AutoModelForSeq2SeqLM.from_config(config).eval()
    missing, unknown = theirs.load_state_dict(network.state_dict(), strict=False)
    assert not unknown and {name.rpartition(".")[0] for name in missing} == {
        "model.encoder.embed_tokens",
        "model.decoder.embed_tokens",
        "lm_head",
    }
    torch.manual_seed(0)
    lengths = torch.randint(3, 20, (24,))
    source = torch.randint(4, 40, (24, 20)).masked_fill(torch.arange(20) >= lengths[:, None], 0)
    starts = torch.full((24,), 3)
    ours = write_beams(network, source, starts, beams=beams, length_penalty=penalty, longest=20)
    search = {"length_penalty": penalty} if beams > 1 else {}
    written = theirs.generate(
        input_ids=source,
        attention_mask=(source != 0).long(),
        decoder_input_ids=starts[:, None],
        num_beams=beams,
        do_sample=False,
        max_new_tokens=20,
        **search,
    )
    cut = [row[: row.index(2)] if 2 in row else row for row in written[:, 1:].tolist()]
    assert ours == [[token for token in row if token != 0] for row in cut]
    assert len({len(row) for row in ours}) > 1


def test_metrics_are_sacrebleu_s() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    chance = np.random.default_rng(2)
    words = ["der", "die", "Mann", "läuft", ",", ".", "über", "grüne", "'Straße'", "3,5", "U.S.", "-"]
    wanted = [" ".join(chance.choice(words, chance.integers(1, 12))) for _ in range(60)]
    written = [
        " ".join(w if chance.random() < 0.8 else str(chance.choice(words)) for w in text.split())
        for text in wanted
    ]
    written[3] = ""
    found, targets = describe_translations(np.zeros((60, 2)), written, wanted), np.ones(60, dtype=np.int64)
    assert read_translations(found) == written
    assert bleu(found, targets) == pytest.approx(BLEU().corpus_score(written, [wanted]).score)
    assert chrf(found, targets) == pytest.approx(CHRF().corpus_score(written, [wanted]).score)
    nothing = describe_translations(np.zeros((2, 2)), ["", ""], ["a b", "c"])
    assert bleu(nothing, targets[:2]) == chrf(nothing, targets[:2]) == 0.0


def test_what_tells_of_a_base_is_read(tmp_path: Path) -> None:
    """A base's decoder begins with its own token, and its texts have the recipe's prefix."""
    train_joint(_TEXTS, vocabulary=400, kind="byte-pairs", tags=["<en>"], folder=tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps({"decoder_start_token_id": 7}))
    tokenizer = PairTokenizer(tmp_path / "base", {"en-de": "translate: "})
    assert not tokenizer.tagged and tokenizer.start("en-de") == 7
    target = tokenizer.target("a", "en-de", longest=9)
    assert target[0] == 7 and target[-1] == tokenizer.end
    assert "translate: a" in tokenizer.read(tokenizer.source("a", "en-de", longest=30))
    (tmp_path / "base" / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="what its decoder begins with"):
        PairTokenizer(tmp_path / "base", {})
