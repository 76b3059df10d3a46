"""CoNLL-U read and written, good and bad; lemma rules; drawings; raw text split."""

from __future__ import annotations

import gzip
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recaster.core.errors import ContractError, DataError, RecipeError
from recaster.data.contract import check_contract, collect_facts
from recaster.data.contract_trees import FACTS, describe_tree, tree_rules
from recaster.data.packed import write_packed
from recaster.data.synthetic_trees import make_trees
from recaster.data.tree_sources import read_trees
from recaster.evaluation.tree_drawing import draw_svg, draw_text
from recaster.models.conllu import (
    Sentence,
    Word,
    find_cycle,
    is_conllu,
    is_projective,
    join_text,
    parse_sentence,
    split_blocks,
    write_sentences,
)
from recaster.models.lemma_rules import apply_rule, find_rule
from recaster.models.segmenter import TextSplitter, label_letters, learn_tokens, train_segmenter
from recaster.pipeline.given_text import write_given
from recaster.pipeline.tree_verbs import draw_trees
from recaster.recipe.data import ContractSection, DataSection

FULL = """# newpar
# sent_id = a-1
# text = I don't see 1 000.
1	I	I	PRON	PRP	Case=Nom	4	nsubj	4:nsubj	_
2-3	don't	_	_	_	_	_	_	_	_
2	do	do	AUX	VBP	_	4	aux	4:aux	_
3	n't	not	PART	RB	_	4	advmod	4:advmod	_
4	see	see	VERB	VB	_	0	root	0:root	_
4.1	seen	see	VERB	VB	_	_	_	4:conj	_
5	1 000	1000	NUM	CD	_	4	obj	4:obj	SpaceAfter=No
6	.	.	PUNCT	.	_	4	punct	4:punct	_"""
ROW = "{0}\t{1}\t{1}\tNOUN\tNN\t_\t{2}\t{3}\t_\t_"


def _tree(*heads: int, name: str = "x") -> str:
    rows = [ROW.format(n, f"w{n}", head, "dep" if head else "root") for n, head in enumerate(heads, start=1)]
    return "\n".join([f"# sent_id = {name}", *rows])


def test_all_that_the_format_has_is_kept() -> None:
    sentence = parse_sentence(FULL)
    assert write_sentences([sentence, sentence]) == f"{FULL}\n\n{FULL}\n\n"
    assert [token.form for token in sentence.tokens()] == ["I", "don't", "see", "1 000", "."]
    assert sentence.text() == sentence.comment("text") == "I don't see 1 000."
    assert len(sentence.words) == 6 and len(sentence.empty_nodes) == 1
    assert split_blocks(f"\ufeff\n\n{FULL}\r\n\r\n{FULL}")[1:] == [FULL, FULL]
    assert is_conllu(FULL) and not is_conllu("2\tcolumns, and a 1 at the start\n1 more")


def test_running_text_has_paragraphs_and_glue() -> None:
    one, other = parse_sentence(FULL), parse_sentence(_tree(0, 1))
    assert join_text([one, other, one]) == "I don't see 1 000. w1 w2\n\nI don't see 1 000."


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("1\tw\tw\tNOUN", "line 1 of the sentence has 4 columns, wanted 10"),
        (ROW.format(2, "w", 0, "root"), "is word 2, wanted 1"),
        (ROW.format(1, "w", "up", "root"), "the head 'up'"),
        (ROW.format(1, "w", -1, "root"), "the head '-1'"),
        (ROW.format(1, "", 0, "root"), "has no form"),
        (ROW.format("x", "w", 0, "root"), "the id 'x'"),
        ("# only = a comment", "no words"),
        (ROW.format("1-3", "www", "_", "_") + "\n" + ROW.format(1, "w", 0, "root"), "does not fit"),
    ],
)
def test_broken_lines_are_named(lines: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_sentence(lines)


def test_cycles_and_crossing_arcs() -> None:
    assert find_cycle([2, 0, 2]) == [] and sorted(find_cycle([2, 3, 1, 0])) == [1, 2, 3]
    assert find_cycle([1]) == [1]
    assert is_projective([2, 0, 2]) and not is_projective([3, 4, 0, 3])


def _check(tmp_path: Path, blocks: list[str], **options: object) -> tuple[dict[str, object], pd.DataFrame]:
    source = tmp_path / "trees.conllu"
    source.write_bytes("\n\n".join(blocks).encode("utf-8", errors="surrogateescape"))
    packed = tmp_path / "packed"
    packed.mkdir()
    write_packed(read_trees(source) or (), packed)
    facts = collect_facts(packed, describe_tree, FACTS)
    data = DataSection.model_validate({"source": str(source), "licence": "-", "trees": options})
    contract = ContractSection(max_quarantined_fraction=1.0, min_rows=1)
    (tmp_path / "report").mkdir()
    told = check_contract(
        facts, tree_rules(data, contract), data=data, contract=contract, folder=tmp_path / "report"
    )
    return told, pd.read_json(tmp_path / "report" / "quarantine.jsonl", lines=True)


def test_trees_that_are_none_go_to_quarantine_with_their_reason(tmp_path: Path) -> None:
    bad = {
        "circle": (_tree(2, 1, 0), "depend on each other in a circle"),
        "two-roots": (_tree(0, 0), "has not exactly one root"),
        "no-root": (_tree(2, 1), "has not exactly one root"),
        "outside": (_tree(0, 7), "a head that is no word of the sentence"),
        "no-head": (_tree(0, 1).replace("\t1\tdep", "\t_\tdep"), "without a head or a relation"),
        "no-relation": (_tree(0, 1).replace("\tdep", "\t_"), "without a head or a relation"),
        "no-tag": (_tree(0, 1).replace("NOUN", "_"), "without a part of speech"),
        "columns": (_tree(0, 1).replace("\t_\t_", ""), "cannot be read"),
        "bytes": (_tree(0, 1).replace("w2", "\udcff"), "cannot be read"),
        "nul": (_tree(0, 1).replace("w2", "w\0"), "control characters"),
        "long": (_tree(0, *range(1, 8)), "has more than 7 words"),
    }
    good = [_tree(0, 1, name="good"), _tree(2, 0, name="ünïcode 😀 שלום")]
    named = [text.replace("# sent_id = x", f"# sent_id = {name}") for name, (text, _) in bad.items()]
    told, quarantine = _check(tmp_path, [*good, *named, _tree(0, name="good")], max_words=7)
    assert told["accepted"] == 1 and told["rows"] == len(bad) + 3
    reasons = dict(zip(quarantine["id"], quarantine["reasons"], strict=True))
    for name, (_, wanted) in bad.items():
        assert any(wanted in reason for reason in reasons[name]), (name, reasons[name])
    assert reasons["good"] == ["shares its id with another record"]


def test_arcs_that_cross_are_bad_only_where_none_may(tmp_path: Path) -> None:
    for number, projective in enumerate((False, True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        told, _ = _check(folder, [_tree(0, 1), _tree(3, 4, 0, 3, name="y")], projective=projective)
        assert told["accepted"] == 2 - number


def test_raw_text_is_no_tree_to_learn_from(tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text("Just a text.")
    (record,) = read_trees(source) or ()
    assert not record.problem and record.text == "Just a text."
    facts = describe_tree({"text": record.text, "problem": ""})
    assert facts["words"] == 0 and "is no sentence in CoNLL-U" in facts["problem"]
    with pytest.raises(ContractError, match="0 good records"):
        _check(tmp_path, ["Just a text."])


def test_sources_by_their_forms(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    folder.mkdir()
    (folder / "b.conllu").write_bytes(b"\xef\xbb\xbf" + f"{FULL}\r\n\r\n{_tree(0)}".encode())
    with gzip.open(folder / "a.conllu.gz", "wb") as file:
        file.write(ROW.format(1, "w", 0, "root").encode())
    records = list(read_trees(folder) or ())
    assert [record.id for record in records] == ["a.conllu.gz/a.conllu.gz:1", "b.conllu/a-1", "b.conllu/x"]
    assert not any(record.problem for record in records) and records[1].text == FULL
    (folder / "a.conllu.gz").unlink(), (folder / "b.conllu").unlink()
    with pytest.raises(DataError, match="no trees"):
        list(read_trees(folder) or ())
    assert read_trees(tmp_path / "x.png") is None


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_every_lemma_has_a_rule(form: str, lemma: str) -> None:
    assert apply_rule(find_rule(form, lemma), form) == lemma


def test_rules_are_shared_by_words() -> None:
    assert find_rule("Studies", "study") == find_rule("cities", "city").replace("keep", "lower")
    assert find_rule("IBM", "IBM") == find_rule("sees", "sees") == "keep::"
    assert apply_rule(find_rule("children", "child"), "oxen") == "o"  # three off the end
    assert apply_rule("keep:-9+x:", "cat") == "cat"


def test_drawings_show_every_arc() -> None:
    sentence = parse_sentence(FULL)
    text = draw_text(sentence)
    assert [line.split()[-1] for line in text.splitlines()] == [word.deprel for word in sentence.words]
    assert [("> " in line, "* " in line) for line in text.splitlines()] == [
        (bool(word.head), not word.head) for word in sentence.words
    ]
    tree = ElementTree.fromstring(draw_svg(sentence))
    words = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert set(words) >= {"don't".replace("don't", "n't"), "1 000", "nsubj", "root"}
    with pytest.raises(DataError, match="no tree to draw"):
        draw_text(Sentence(words=(Word(form="x"),)))
    with pytest.raises(DataError, match="sentence 1"):
        draw_trees(("a.conllu", b"1\tx"), svg=None, most=1)


def test_text_is_split_as_the_training_split_was() -> None:
    sentences = [parse_sentence(record.text or "") for record in make_trees()]
    text, classes = label_letters(sentences)
    assert text.strip() == join_text(sentences).replace("\n\n", "\n") and len(text) == len(classes)
    learned = learn_tokens(sentences[:200])
    assert learned["whole"] == {"don't": ["do", "n't"], "doesn't": ["does", "n't"]}
    model = train_segmenter(sentences[:200], learned["letters"], epochs=15, seed=1)
    splitter = TextSplitter(model, learned, most_words=50)
    found = splitter.split(join_text(sentences[200:]))
    wanted = [[token.form for token in one.tokens()] for one in sentences[200:]]
    assert np.mean([[token.form for token in one.tokens()] in wanted for one in found]) > 0.95
    denied = next(one for one in found if one.spans)
    forms = [word.form for word in denied.words[denied.spans[0].first - 1 :][:2]]
    assert forms in (["do", "n't"], ["does", "n't"])
    long = splitter.split("cat " * 120)
    assert max(len(one.words) for one in long) <= 50
    assert splitter.split(" \n\n ") == []
    assert "".join("".join(one.text().split()) for one in splitter.split("שלום 😀 x" * 900)) == (
        "שלום 😀 x" * 900
    ).replace(" ", "")


def test_what_comes_through_standard_input(tmp_path: Path) -> None:
    assert write_given(FULL.encode(), "trees", tmp_path).name == "given.conllu"
    assert write_given(b"A text.\n", "trees", tmp_path).name == "given.txt"
    lines = write_given(b"\xef\xbb\xbfone \n\ntwo", "text", tmp_path)
    assert lines.read_text() == '{"text": "one"}\n{"text": "two"}\n'
    assert write_given(b"one\n\ntwo", "pairs", tmp_path).read_text() == "one\ntwo\n"
    assert '"role": "user"' in write_given(b"hello", "chat", tmp_path).read_text()
    for content, told in ((b"\xff", "not UTF-8"), (b" \n", "is empty")):
        with pytest.raises(DataError, match=told):
            write_given(content, "trees", tmp_path)
    with pytest.raises(RecipeError, match="standard input"):
        write_given(b"x", "image", tmp_path)
