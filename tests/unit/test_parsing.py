"""Trees found, scored and learned, against references worked out by hand or by trying all."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from recaster.core.errors import RecipeError
from recaster.data.synthetic_trees import make_trees
from recaster.evaluation.conll18 import score_trees
from recaster.evaluation.parse_counts import PARSE_METRICS, count_sentences, tabulate
from recaster.models.bert_encoder import BertEncoder, read_size, rename_published
from recaster.models.conllu import Sentence, Span, Word, find_cycle, is_projective, parse_sentence
from recaster.models.dependency_parser import build_model
from recaster.models.loading import load_state
from recaster.models.parser_columns import (
    TAGS,
    ColumnDecoder,
    TargetEncoder,
    WordEncoder,
    collect_vocabulary,
    stack_rows,
)
from recaster.models.parsers import read_encoder
from recaster.models.parsing_loss import count_attached, parsing_loss
from recaster.models.tree_decoding import find_projective_tree, find_tree

SIZE = {"vocabulary": 30, "places": 40, "segments": 2, "width": 16, "depth": 2, "heads": 4, "inner": 32}
ENCODER = {**SIZE, "epsilon": 1e-12, "dropout": 0.1, "begin": 1, "end": 2}


def _best_tree(scores: list[list[float]], *, projective: bool) -> float:
    """The sum of the best tree with one root, by trying all."""
    words = len(scores)
    best = -float("inf")
    for heads in itertools.product(range(words + 1), repeat=words):
        if heads.count(0) != 1 or find_cycle(heads) or (projective and not is_projective(heads)):
            continue
        best = max(best, sum(scores[word][head] for word, head in enumerate(heads)))
    return best


@pytest.mark.parametrize("words", [1, 2, 3, 4, 5])
def test_the_best_tree_is_found(words: int) -> None:
    chosen = torch.Generator().manual_seed(words)
    for trial in range(30):
        scores = torch.randn(words, words + 1, generator=chosen, dtype=torch.double)
        scores[:, 0] += trial % 3 * 3  # so that several words would like to be the root
        if trial % 5 == 0:
            scores = scores.round()  # with ties
        for projective, find in ((False, find_tree), (True, find_projective_tree)):
            heads = find(scores)
            assert heads.count(0) == 1 and not find_cycle(heads)
            assert not projective or is_projective(heads)
            found = sum(float(scores[word, head]) for word, head in enumerate(heads))
            assert found == pytest.approx(_best_tree(scores.tolist(), projective=projective))


def test_long_sentences_get_whole_trees() -> None:
    scores = torch.randn(120, 121, generator=torch.Generator().manual_seed(0))
    for find in (find_tree, find_projective_tree):
        heads = find(scores)
        assert heads.count(0) == 1 and not find_cycle(heads)
    assert is_projective(find_projective_tree(scores))


def _sentence(*rows: tuple[Any, ...], spans: tuple[Span, ...] = ()) -> Sentence:
    """Rows of form, head, relation, and more columns by name."""
    words = tuple(
        Word(form=form, head=head, deprel=relation, **(row[0] if row else {}))
        for form, head, relation, *row in rows
    )
    return Sentence(words=words, spans=spans)


def test_scores_on_the_same_words() -> None:
    gold = _sentence(
        ("The", 2, "det", {"upos": "DET", "lemma": "the", "feats": "Definite=Def|Style=Coll"}),
        ("cat", 3, "nsubj:pass", {"upos": "NOUN", "lemma": "_"}),
        ("sleeps", 0, "root", {"upos": "VERB", "lemma": "sleep"}),
        ("here", 3, "advmod", {"upos": "ADV", "lemma": "here"}),
    )
    found = _sentence(
        ("The", 2, "det", {"upos": "DET", "lemma": "the", "feats": "Definite=Def"}),
        ("cat", 3, "nsubj", {"upos": "PROPN", "lemma": "anything"}),
        ("sleeps", 0, "root", {"upos": "VERB", "lemma": "sleeps"}),
        ("here", 2, "case", {"upos": "ADV", "lemma": "here"}),
    )
    scores = score_trees([gold], [found])
    assert {name: one.correct for name, one in scores.items()} == {
        "Tokens": 4,
        "Sentences": 1,
        "Words": 4,
        "UPOS": 3,
        "XPOS": 4,
        "UFeats": 4,  # Style is no universal feature
        "Lemmas": 3,  # a gold lemma that is not told is always right
        "UAS": 3,
        "LAS": 3,  # subtypes do not count
        "CLAS": 2,  # cat and sleeps
    }
    # Gold has three content words, the parser two: case is none.
    assert (scores["CLAS"].gold, scores["CLAS"].system) == (3, 2)
    assert scores["CLAS"].f1 == pytest.approx(2 * 2 / 5)


def test_scores_where_tokens_differ() -> None:
    """ab c | d against a b cd, one sentence against two: worked out by hand."""
    gold = [_sentence(("ab", 0, "root"), ("c", 1, "obj")), _sentence(("d", 0, "root"))]
    found = [_sentence(("a", 2, "det"), ("b", 0, "root"), ("cd", 2, "obj"))]
    scores = score_trees(gold, found)
    assert {(one.gold, one.system, one.correct) for name, one in scores.items() if name != "Sentences"} == {
        (3, 3, 0),
        (3, 2, 0),  # CLAS: det is no content word
    }
    assert (scores["Sentences"].gold, scores["Sentences"].system, scores["Sentences"].correct) == (2, 1, 0)
    same = [_sentence(("ab", 0, "root"), ("c", 1, "obj"), ("d", 1, "obj"))]
    scores = score_trees(gold, same)
    assert (scores["Tokens"].correct, scores["Words"].correct, scores["Sentences"].correct) == (3, 3, 0)
    assert (scores["UAS"].correct, scores["LAS"].f1) == (2, pytest.approx(2 / 3))


def test_words_of_one_token_are_aligned_by_their_forms() -> None:
    """don't ok as do n't ok, as don t ok, and as one word: only what has a partner can be right."""
    span = Span(first=1, last=2, form="don't")
    gold = _sentence(("do", 3, "aux"), ("n't", 3, "advmod"), ("ok", 0, "root"), spans=(span,))
    other = _sentence(("do", 3, "aux"), ("not", 3, "advmod"), ("ok", 0, "root"), spans=(span,))
    scores = score_trees([gold], [other])
    assert (scores["Tokens"].correct, scores["Words"].correct, scores["LAS"].correct) == (2, 2, 2)
    whole = _sentence(("Don't", 2, "aux"), ("ok", 0, "root"))
    with pytest.raises(ValueError, match="after 0 letters"):
        score_trees([gold], [whole])
    whole = _sentence(("don't", 2, "aux"), ("ok", 0, "root"))
    scores = score_trees([gold], [whole])
    assert (scores["Tokens"].correct, scores["Words"].correct, scores["UAS"].correct) == (2, 1, 1)
    assert scores["Words"].f1 == pytest.approx(2 / 5)
    # In two tokens: the letters of the span are one stretch, whose words are matched by form.
    apart = _sentence(("do", 3, "aux"), ("n't", 3, "advmod"), ("ok", 0, "root"))
    scores = score_trees([gold], [apart])
    assert (scores["Tokens"].correct, scores["Words"].correct, scores["LAS"].correct) == (1, 3, 3)
    assert score_trees([apart], [gold])["LAS"].correct == 3


def test_counts_are_the_scores_by_sentence() -> None:
    gold = [parse_sentence(record.text or "") for record in itertools.islice(make_trees(), 12)]
    wrong = [
        replace(
            one,
            words=tuple(
                replace(word, deprel="dep", upos="X") if n % 3 == 0 and word.head else word
                for n, word in enumerate(one.words)
            ),
        )
        for one in gold
    ]
    predictions, targets = count_sentences(gold, wrong)
    scores = score_trees(gold, wrong)
    wanted = {"uas": "UAS", "las": "LAS", "clas": "CLAS", "upos_accuracy": "UPOS", "lemma_accuracy": "Lemmas"}
    for name, theirs in wanted.items():
        assert PARSE_METRICS[name](predictions, targets) == pytest.approx(scores[theirs].f1)
    assert scores["LAS"].f1 < scores["UAS"].f1 == 1.0
    tables = tabulate(predictions, targets)
    assert sum(row["words"] for row in tables["by_relation"]) == targets[:, 0].sum()
    assert sum(row["words"] for row in tables["by_distance"]) == targets[:, 0].sum()
    assert {row["group"] for row in tables["by_length"]} <= {"1 to 10", "11 to 20"}
    punctuation = next(row for row in tables["by_relation"] if row["group"] == "punct")
    assert punctuation["precision"] == 1.0 and 0 < punctuation["recall"] <= 1.0


def _vocabulary() -> tuple[list[Sentence], dict[str, list[str]]]:
    sentences = [parse_sentence(record.text or "") for record in itertools.islice(make_trees(), 40)]
    return sentences, collect_vocabulary(sentences, words=50, least=1)


def _model(vocabulary: dict[str, list[str]], *, encoder: dict[str, Any] | None, **options: Any) -> Any:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"width": 12, "depth": 2, "biaffine": 8, "dropout": 0.1, "first_piece": False}
    model = build_model(
        encoder=encoder,
        words=len(vocabulary["words"]),
        characters=len(vocabulary["characters"]),
        relations=len(vocabulary["relations"]),
        tags=[len(vocabulary[kind]) for kind in TAGS],
        **{**arguments, **options},
    )
    for part in (model.arcs, model.relations):
        torch.nn.init.normal_(part.weight, std=0.3)
    return model.eval()


def _cut(form: str) -> list[int]:
    """A piece a letter."""
    return [3 + ord(letter) % 27 for letter in form]


@pytest.mark.parametrize(("encoder", "first"), [(None, False), (ENCODER, False), (ENCODER, True)])
def test_a_sentence_is_answered_alike_whatever_stands_beside_it(
    encoder: dict[str, Any] | None, first: bool
) -> None:
    sentences, vocabulary = _vocabulary()
    model = _model(vocabulary, encoder=encoder, first_piece=first)
    words = WordEncoder(vocabulary, _cut if encoder else None, most_pieces=38)
    rows = [words.encode([word.form for word in one.words]) for one in sentences[:6]]
    together = model(stack_rows(rows, words.columns))
    for row, one in enumerate(rows):
        alone = model(stack_rows([one], words.columns))[0]
        count = len(one)
        slots = alone.shape[1] - count - 1
        beside = together[row, :count, : slots + count + 1]
        torch.testing.assert_close(beside, alone, atol=2e-5, rtol=1e-4)
    # Heads and relations are distributions; no word is its own head, and none that only fills up.
    trees = together[0, : len(rows[0]), slots:]
    torch.testing.assert_close(trees[..., 0].exp().sum(1), torch.ones(len(rows[0])))
    torch.testing.assert_close(trees[..., 1:].exp().sum(2), torch.ones(trees.shape[:2]))
    assert trees[0, 1, 0] < -1e8 and (trees[:, len(rows[0]) + 1 :, 0] < -1e8).all()


def test_the_loss_is_the_sum_that_it_says() -> None:
    sentences, vocabulary = _vocabulary()
    model, words = _model(vocabulary, encoder=None), WordEncoder(vocabulary, None)
    targets = TargetEncoder(vocabulary)
    rows = [words.encode([word.form for word in one.words]) for one in sentences[:3]]
    seen = model(stack_rows(rows, words.columns))
    wanted = stack_rows([[targets.encode(word) for word in one.words] for one in sentences[:3]], 6)
    weights = [1.0, 2.0, 0.5, 0.25, 0.125, 4.0]
    slots = seen.shape[2] - seen.shape[1] - 1
    seen, total = seen.detach(), 0.0
    for row, one in enumerate(sentences[:3]):
        for place, word in enumerate(one.words):
            numbers = targets.encode(word)
            cells = seen[row, place, slots + numbers[0]]
            tags = seen[row, place, :slots].flatten()
            parts = [cells[0], cells[1 + numbers[1]], *(tags[number] for number in numbers[2:])]
            total -= sum(weight * float(part) for weight, part in zip(weights, parts, strict=True))
    assert float(parsing_loss(seen, wanted, weights=weights)) == pytest.approx(total, rel=1e-5)
    unknown = wanted.clone()
    unknown[:, :, 1:] = -1
    heads_alone = parsing_loss(seen, unknown, weights=weights)
    assert float(heads_alone) == pytest.approx(float(parsing_loss(seen, wanted, weights=[1, 0, 0, 0, 0, 0])))
    # A network that says the truth is found right in every word.
    perfect = torch.full_like(seen, -9.0)
    for row, one in enumerate(sentences[:3]):
        for place, word in enumerate(one.words):
            numbers = targets.encode(word)
            perfect[row, place, slots + numbers[0], 0] = 0
            perfect[row, place, slots + numbers[0], 1 + numbers[1]] = 0
            for number in numbers[2:]:
                perfect[row, place, number // seen.shape[3], number % seen.shape[3]] = 0
    words_in_all = sum(len(one.words) for one in sentences[:3])
    assert int(count_attached(perfect, wanted)) == words_in_all
    decoder = ColumnDecoder(vocabulary, projective=False)
    for row, one in enumerate(sentences[:3]):
        bare = replace(one, words=tuple(Word(form=word.form, misc=word.misc) for word in one.words))
        assert decoder.fill_in(bare, perfect[row]) == one


def test_relations_at_the_root_are_root_and_no_others() -> None:
    vocabulary = {"relations": ["det", "root"], **{kind: ["_"] for kind in TAGS}}
    seen = torch.zeros(2, 2 + 3, 3)  # two tag slots of three columns, then root and two heads
    seen[0, 2 + 2, 0] = seen[1, 2 + 0, 0] = 5.0
    seen[0, 2 + 2, 2] = seen[1, 2 + 0, 1] = 5.0  # `root` for the dependent, `det` at the root
    found = ColumnDecoder({**vocabulary, "lemmas": ["keep::"]}, projective=False).fill_in(
        Sentence(words=(Word(form="a"), Word(form="b"))), seen
    )
    assert [(word.head, word.deprel, word.lemma) for word in found.words] == [
        (2, "det", "a"),
        (0, "root", "b"),
    ]


def test_long_words_and_sentences_are_cut_to_what_there_is_room_for() -> None:
    _, vocabulary = _vocabulary()
    words = WordEncoder(vocabulary, _cut, most_pieces=20)
    (row,) = words.encode(["x" * 50])
    assert len(row) == words.columns and sum(number >= 0 for number in row) == 1 + 20 + 8
    rows = words.encode(["abcdef"] * 10)
    assert [sum(number >= 0 for number in one[21:]) for one in rows] == [2] * 10
    assert words.encode(["\0", "😀", "שלום"])[0][:2] == [0, 0]


def test_our_bert_is_the_published_one(tmp_path: Any) -> None:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        "bert",
        vocab_size=30,
        max_position_embeddings=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
    )
    torch.manual_seed(0)
    theirs = AutoModel.from_config(config).eval()
    ours = BertEncoder(read_size(config.to_dict())).eval()
    report = load_state(ours, theirs.state_dict(), rename=rename_published)
    assert report.reinitialised == () and all("pooler" in name for name in report.ignored)
    tokens = torch.randint(0, 30, (3, 9))
    counted = torch.arange(9) < torch.tensor([9, 4, 7])[:, None]
    wanted = theirs(input_ids=tokens, attention_mask=counted.long()).last_hidden_state
    torch.testing.assert_close(ours(tokens, counted)[counted], wanted[counted], atol=1e-5, rtol=1e-4)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(RecipeError, match="BERT kind"):
        read_encoder(tmp_path)
