"""Parsers from sentences with trees to answers elsewhere, over LSTMs and over an open encoder."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.data.synthetic_trees import make_trees
from recaster.data.tree_shards import read_split_sentences
from recaster.models.conllu import find_cycle, join_text, parse_sentence, split_blocks, write_sentences
from recaster.workloads.dependency_parsing import open_parser
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_QUICK = ("train.epochs=2", "data.trees.segmenter_epochs=4", "evaluate.samples=2")


def _open_cast(folder: Path, *overrides: str) -> pipeline.Cast:
    recipe = folder / "recipes" / "tiny.yaml"
    recipe.parent.mkdir()
    shutil.copy(ROOT / "recipes" / "dependency-parsing" / "tiny.yaml", recipe)
    shutil.copy(ROOT / "dvc.yaml", folder)
    return pipeline.open_cast(recipe, [*_QUICK, *overrides])


def _write_base(folder: Path) -> Path:
    """A small BERT with fresh weights, and the tokenizer of the synthetic sentences."""
    import torch
    from transformers import AutoConfig, AutoModel

    from recaster.data.tokenizers import train_byte_pairs

    texts = [parse_sentence(record.text or "").text() for record in make_trees()]
    train_byte_pairs(texts, vocabulary=400, folder=folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model("bert", vocab_size=400, max_position_embeddings=80, **sizes)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("body", ["lstm", pytest.param("bert", marks=pytest.mark.campaign)])
def test_a_cast_and_its_answers(body: str, tmp_path: Path) -> None:
    overrides: list[str] = []
    if body == "bert":
        base = _write_base(tmp_path / "base")
        overrides = [f"model.base=path:{base}", "model.licence=MIT", "accept_licences=[Apache-2.0, MIT]"]
        overrides += ["data.trees.projective=true"]
    cast = _open_cast(tmp_path, *overrides)
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    artifact = pipeline.run_to(cast, "export", SilentReporter()).path
    prepared = pipeline.run_to(cast, "prepare", SilentReporter())
    assert prepared.facts["words"]["test"] > 5 * prepared.facts["rows"]["test"]
    tables = read_json(evaluated.path / "metrics.json")
    assert set(tables["raw_text"]) >= {"Tokens", "Sentences", "Words", "LAS", "CLAS", "UFeats"}
    assert (evaluated.path / "attachment.png").exists() and len(tables["samples"]) == 2

    from recaster.serving import pyfunc_trees

    served = pyfunc_trees.TreeFinder()
    served.load_context(SimpleNamespace(artifacts={"model": str(artifact)}))  # type: ignore[arg-type]
    parser, gold = open_parser(artifact), read_split_sentences(prepared.path, "test")[:12]
    texts = [join_text(gold), write_sentences(gold), "", "שלום 😀"]
    frame: Any = served.predict(None, pd.DataFrame({"text": texts}))  # type: ignore[arg-type]
    assert list(frame["conllu"]) == [parser.parse(text) for text in texts]
    assert list(frame["sentences"])[1:3] == [12, 0] and frame["words"][1] == sum(len(s.words) for s in gold)
    for one in [parse_sentence(block) for block in split_blocks("\n\n".join(frame["conllu"]))]:
        heads = [word.head or 0 for word in one.words]
        assert heads.count(0) == 1 and not find_cycle(heads)
        assert all(word.deprel != "_" and word.upos != "_" for word in one.words)
    # What is parsed of sentences in CoNLL-U keeps their comments, tokens and spaces.
    again = [parse_sentence(block) for block in split_blocks(frame["conllu"][1])]
    assert [(one.comments, one.spans, one.text()) for one in again] == [
        (one.comments, one.spans, one.text()) for one in gold
    ]
    counts, targets = np.load(evaluated.path / "predictions.npy"), np.load(evaluated.path / "targets.npy")
    assert counts[:12, 0].sum() == sum(
        mine.head == theirs.head
        for one, other in zip(gold, again, strict=True)
        for mine, theirs in zip(one.words, other.words, strict=True)
    )
    assert targets[:12, 0].sum() == frame["words"][1]


def test_what_does_not_fit_is_said_before_any_work(tmp_path: Path) -> None:
    for override, told in (
        ("train.loss.name=focal", "has the loss cross-entropy"),
        ("train.loss.label_smoothing=0.1", "without label_smoothing"),
        ("data.labels=[a, b]", "data.labels is for classes"),
    ):
        folder = tmp_path / override.replace("=", "-").replace(".", "-")
        folder.mkdir()
        with pytest.raises(RecipeError, match=told):
            _open_cast(folder, override)
    folder = tmp_path / "other"
    folder.mkdir()
    shutil.copy(ROOT / "recipes" / "text-classification" / "tiny.yaml", folder / "tiny.yaml")
    with pytest.raises(RecipeError, match="weights belongs to workload dependency-parsing"):
        pipeline.open_cast(folder / "tiny.yaml", ["train.loss.weights.upos=2.0"])
