"""Parsers as artifacts, over LSTMs and over an open encoder: what they answer here and elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from recaster.core.errors import RecipeError
from recaster.customization.build import build_customized
from recaster.data.packed import write_packed
from recaster.data.synthetic_trees import make_trees
from recaster.data.tree_shards import read_split_sentences
from recaster.evaluation.parse_report import measure_raw
from recaster.exporting.card_texts import PARSING
from recaster.models.conllu import find_cycle, join_text, parse_sentence, split_blocks, write_sentences
from recaster.recipe.load import load_recipe
from recaster.recipe.schema import Recipe
from recaster.workloads.dependency_parsing import WORKLOAD, open_parser
from tests.conftest import ROOT

_TINY = ROOT / "recipes" / "dependency-parsing" / "tiny.yaml"


def _write_base(folder: Path) -> Path:
    """A small BERT with fresh weights, and the tokenizer of the synthetic sentences."""
    from transformers import AutoConfig, AutoModel

    from recaster.data.tokenizers import train_byte_pairs

    texts = [parse_sentence(record.text or "").text() for record in make_trees()]
    train_byte_pairs(texts, vocabulary=400, folder=folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model("bert", vocab_size=400, max_position_embeddings=80, **sizes)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def _prepare(recipe: Recipe, base: Path | None, folder: Path) -> Path:
    raw, prepared = folder / "raw", folder / "prepared"
    raw.mkdir()
    prepared.mkdir()
    rows = write_packed(make_trees(), raw)
    facts = WORKLOAD.prepare(recipe, raw, np.arange(rows), base, prepared)
    assert facts["words"]["test"] > 5 * facts["rows"]["test"]
    return prepared


def _export(recipe: Recipe, base: Path | None, prepared: Path, folder: Path) -> Path:
    """The artifact of a parser as it begins, but with heads that prefer something."""
    plan = {
        "prepared": str(prepared),
        "base": str(base) if base else None,
        "teacher": None,
        "model_arguments": WORKLOAD.model_arguments(recipe),
        "train": recipe.train.model_dump(),
        "customize": recipe.customize.model_dump(),
    }
    model: Any = build_customized(WORKLOAD, plan)
    torch.manual_seed(3)
    for part in (model.arcs, model.relations):
        torch.nn.init.normal_(part.weight, std=0.3)
    save_file(model.state_dict(), folder / "weights.safetensors")
    artifact = folder / "artifact"
    artifact.mkdir()
    WORKLOAD.export(plan, recipe, folder / "weights.safetensors", artifact)
    return artifact


@pytest.mark.parametrize("body", ["lstm", "bert"])
def test_an_artifact_answers_alike_everywhere(body: str, tmp_path: Path) -> None:
    base = _write_base(tmp_path / "base") if body == "bert" else None
    recipe = load_recipe(
        _TINY, ["data.trees.segmenter_epochs=3", f"data.trees.projective={str(body == 'bert').lower()}"]
    )
    prepared = _prepare(recipe, base, tmp_path)
    artifact = _export(recipe, base, prepared, tmp_path)

    from recaster.serving import pyfunc_trees

    served = pyfunc_trees.TreeFinder()
    served.load_context(SimpleNamespace(artifacts={"model": str(artifact)}))  # type: ignore[arg-type]
    parser, gold = open_parser(artifact), read_split_sentences(prepared, "test")
    texts = [join_text(gold), write_sentences(gold), "", "שלום 😀"]
    frame: Any = served.predict(None, pd.DataFrame({"text": texts}))  # type: ignore[arg-type]
    assert list(frame["conllu"]) == [parser.parse(text) for text in texts]
    assert list(frame["sentences"])[1:3] == [len(gold), 0]
    for block in split_blocks("\n\n".join(frame["conllu"])):
        words = parse_sentence(block).words
        heads = [word.head or 0 for word in words]
        assert heads.count(0) == 1 and not find_cycle(heads)
        assert all(word.deprel != "_" and word.upos != "_" for word in words)
    # What is parsed of sentences in CoNLL-U keeps their comments, tokens and spaces.
    again = [parse_sentence(block) for block in split_blocks(frame["conllu"][1])]
    assert [(one.comments, one.spans, one.text()) for one in again] == [
        (one.comments, one.spans, one.text()) for one in gold
    ]
    counts, targets = WORKLOAD.predict(artifact, prepared, "test")
    right = sum(
        mine.head == theirs.head
        for one, other in zip(gold, again, strict=True)
        for mine, theirs in zip(one.words, other.words, strict=True)
    )
    assert (counts[:, 0].sum(), targets[:, 0].sum()) == (right, frame["words"][1])
    raw = measure_raw(parser, gold)["raw_text"]
    assert raw["Tokens"] > raw["LAS"] >= 0.0 and set(raw) >= {"Sentences", "Words", "CLAS", "UFeats"}
    with pytest.raises(ValueError, match="and the model takes 60"):
        parser.parse("\n".join(f"{n}\tw\t_\t_\t_\t_\t_\t_\t_\t_" for n in range(1, 62)))
    _check_without_us(artifact, parser.parse("A text, or sentences in CoNLL-U."))


def _check_without_us(artifact: Path, wanted: str) -> None:
    """The card's own lines, in a process that knows nothing of this project."""
    code = "import sys; assert 'recaster' not in sys.modules; sys.path.insert(0, '.')\n" + "\n".join(PARSING)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=artifact, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == wanted + "\n"
    assert json.loads((artifact / "config.json").read_text())["architecture"] == "sentence_parser"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.loss.name=focal", "has the loss cross-entropy"),
        ("train.loss.label_smoothing=0.1", "without label_smoothing"),
        ("data.labels=[a, b]", "data.labels is for classes"),
    ],
)
def test_what_does_not_fit_is_said_before_any_work(override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe(_TINY, [override])


def test_weights_of_a_parser_are_of_no_other_workload() -> None:
    with pytest.raises(RecipeError, match="weights belongs to workload dependency-parsing"):
        load_recipe(ROOT / "recipes" / "text-classification" / "tiny.yaml", ["train.loss.weights.upos=2.0"])
