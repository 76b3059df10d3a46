"""Continued pre-training: casts of both objectives, what comes out, and where it serves as a base."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.files import read_json
from recaster.core.progress import SilentReporter
from recaster.core.steps import StepResult
from recaster.customization.build import build_customized
from recaster.data.document_shards import open_document_rows
from recaster.models.losses import NO_TARGET
from recaster.pipeline.inputs import training_plan
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("language-models")]
_MASKED = ("data.corpus.objective=masked", "model.base=scratch:small-encoder", "train.epochs=2")
_LICENCE = "model.licence=Apache-2.0"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts") / "a project"
    for name in ("language-modelling", "text-classification", "chat"):
        (folder / "recipes" / name).mkdir(parents=True)
        shutil.copy(ROOT / "recipes" / name / "tiny.yaml", folder / "recipes" / name)
    shutil.copy(ROOT / "dvc.yaml", folder)
    return folder


def _open(project: Path, *overrides: str, workload: str = "language-modelling") -> pipeline.Cast:
    return pipeline.open_cast(project / "recipes" / workload / "tiny.yaml", overrides)


def _run(cast: pipeline.Cast, verb: str) -> StepResult:
    return pipeline.run_to(cast, verb, SilentReporter())


@pytest.fixture(scope="module")
def encoder(project: Path) -> Path:
    """A small encoder that was pre-trained on the notes."""
    return _run(_open(project, *_MASKED), "export").path


@pytest.fixture(scope="module")
def decoder(project: Path) -> Path:
    return _run(_open(project, "train.epochs=2"), "export").path


@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_plain_transformers_measures_the_same(project: Path, request: Any, objective: str) -> None:
    """Logits of all places by transformers alone, against ours of the learned ones."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    artifact = request.getfixturevalue("encoder" if objective == "masked" else "decoder")
    cast = _open(project, *(_MASKED if objective == "masked" else ("train.epochs=2",)))
    prepared = _run(cast, "prepare").path
    found, learned = cast.workload.predict(artifact, prepared, "test")
    data = open_document_rows(prepared, "test")
    kind = AutoModelForMaskedLM if objective == "masked" else AutoModelForCausalLM
    model: Any = kind.from_pretrained(artifact).eval()
    for row in (0, 40, len(data) - 1):
        given, targets = data.batch(np.array([row]), seed=None)
        marks = (given < 0)[0]
        with torch.no_grad():
            logits = model(input_ids=given.where(given >= 0, ~given)).logits[0][marks]
        wanted = torch.nn.functional.cross_entropy(logits, targets[0], reduction="sum")
        assert found[row, 0] == pytest.approx(float(wanted), rel=1e-4)
        assert found[row, 1] == int((logits.argmax(-1) == targets[0]).sum())
        assert learned[row] == int(marks.sum()) == int((targets != NO_TARGET).sum())


def test_an_encoder_is_the_base_of_a_classifier(project: Path, encoder: Path) -> None:
    overrides = (f"model.base=path:{encoder}", _LICENCE, "train.max_steps=3")
    cast = _open(project, *overrides, workload="text-classification")
    trained, prepared = _run(cast, "train"), _run(cast, "prepare")
    start = build_customized(cast.workload, training_plan(cast, prepared)).state_dict()
    weights = load_file(encoder / "model.safetensors")
    inside = [name for name in weights if name.startswith("bert.")]
    assert len(inside) > 20
    assert all(torch.equal(start[f"network.{name}"], weights[name]) for name in inside)
    assert any(name.startswith("cls.") for name in weights)
    assert trained.facts["steps"] == 3


@pytest.mark.campaign
def test_a_chat_model_is_pre_trained_and_chats_again(project: Path) -> None:
    """The chat template goes with the artifact, so that what comes out is a base for chat as before."""
    few = ("train.max_steps=3", _LICENCE)
    chat = _run(_open(project, few[0], workload="chat"), "export").path
    trained = _run(_open(project, f"model.base=path:{chat}", *few), "export").path
    again = _open(project, f"model.base=path:{trained}", *few, workload="chat")
    start = build_customized(again.workload, training_plan(again, _run(again, "prepare"))).state_dict()
    weights, before = (load_file(folder / "model.safetensors") for folder in (trained, chat))
    assert all(torch.equal(start[f"network.{name}"], value) for name, value in weights.items())
    assert not all(torch.equal(before[name], value) for name, value in weights.items())
    assert _run(again, "train").facts["steps"] == 3


@pytest.mark.campaign
@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_a_cast_keeps_packed_documents_apart(project: Path, request: Any, objective: str) -> None:
    """Both in training and when measured; and it is refused where it cannot be."""
    artifact = request.getfixturevalue("encoder" if objective == "masked" else "decoder")
    packed = (
        f"model.base=path:{artifact}",
        _LICENCE,
        f"data.corpus.objective={objective}",
        "train.max_steps=3",
    )
    apart = _open(project, *packed, "data.corpus.packed=true", "data.corpus.apart=true")
    together = _open(project, *packed, "data.corpus.packed=true")
    found = {}
    for name, cast in (("apart", apart), ("together", together)):
        nats, learned = cast.workload.predict(artifact, _run(cast, "prepare").path, "test")
        found[name] = nats[:, 0].sum() / learned.sum()
    assert abs(found["apart"] - found["together"]) > 1e-3
    assert _run(apart, "train").facts["steps"] == 3
    if objective == "causal":
        prompt = _open(
            project, *packed, "data.corpus.packed=true", "data.corpus.apart=true", "customize.method=prompt"
        )
        with pytest.raises(RecipeError, match="are of no document"):
            build_customized(prompt.workload, training_plan(prompt, _run(prompt, "prepare")))


def test_pre_training_goes_on_from_a_base(project: Path, decoder: Path) -> None:
    """LoRA beside a causal base: measured before and after on the same rows, and merged on export."""
    overrides = (
        f"model.base=path:{decoder}",
        _LICENCE,
        "customize.method=lora",
        "train.epochs=2",
        "data.corpus.packed=true",
    )
    cast = _open(project, *overrides)
    evaluated, artifact = _run(cast, "evaluate"), _run(cast, "export").path
    before, after = (
        facts["perplexity"]["value"] for facts in (evaluated.facts["untuned"], evaluated.facts["metrics"])
    )
    assert after < before
    assert load_file(artifact / "model.safetensors").keys() == load_file(decoder / "model.safetensors").keys()
    assert (artifact / "adapter" / "adapter_config.json").exists()
    told = read_json(evaluated.path / "metrics.json")
    assert 0 < told["bits_a_byte"] < 8
    assert all(sample["wanted"] and sample["text"] for sample in told["samples"])


def test_an_encoder_without_a_head_gets_one_and_needs_full_training(project: Path, encoder: Path) -> None:
    from transformers import AutoModel

    bare = project / "bare"
    AutoModel.from_pretrained(encoder, add_pooling_layer=False).save_pretrained(bare)
    for path in encoder.glob("tokenizer*"):
        shutil.copy(path, bare)
    overrides = (*_MASKED, "model.base=path:bare", _LICENCE)
    cast = _open(project, *overrides)
    prepared = _run(cast, "prepare")
    model: Any = build_customized(cast.workload, training_plan(cast, prepared))
    assert all(name.startswith("cls.") for name in model.report.reinitialised)
    assert model.network.get_output_embeddings().weight is model.network.get_input_embeddings().weight
    assert not cast.workload.answers(bare, prepared.path) and cast.workload.answers(encoder, prepared.path)
    lora = _open(project, *overrides, "customize.method=lora")
    with pytest.raises(RecipeError, match="no head for masked language modelling"):
        build_customized(lora.workload, training_plan(lora, prepared))


@pytest.mark.campaign
@pytest.mark.parametrize("method", ["lora", "bitfit"])
def test_an_encoder_with_its_head_takes_other_methods(project: Path, encoder: Path, method: str) -> None:
    overrides = (
        *_MASKED,
        f"model.base=path:{encoder}",
        _LICENCE,
        f"customize.method={method}",
        "train.epochs=1",
    )
    cast = _open(project, *overrides, "train.max_steps=3")
    artifact, evaluated = _run(cast, "export").path, _run(cast, "evaluate")
    after, before = (load_file(folder / "model.safetensors") for folder in (artifact, encoder))
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert any(name.endswith("bias" if method == "bitfit" else "query.weight") for name in changed)
    embeddings = "bert.embeddings.word_embeddings.weight"
    assert embeddings in after and embeddings not in changed
    assert evaluated.facts["untuned"].keys() == evaluated.facts["metrics"].keys()


def test_a_model_with_other_tokens_is_not_compared(project: Path, encoder: Path) -> None:
    cast = _open(project, *_MASKED, "model.vocabulary=350")
    with pytest.raises(RecipeError, match="perplexities do not compare"):
        cast.workload.predict(encoder, _run(cast, "prepare").path, "test")


def test_mlflow_s_model_answers(encoder: Path, decoder: Path) -> None:
    from recaster.serving import pyfunc_language

    def ask(artifact: Path, text: str, **params: int) -> dict[str, Any]:
        model = pyfunc_language.LanguageModel()
        context: Any = SimpleNamespace(artifacts={"model": str(artifact)})
        model.load_context(context)
        (row,) = model.predict(context, pd.DataFrame({"text": [text]}), params).to_dict("records")
        signature, example = pyfunc_language.describe(artifact)
        assert list(row) == signature.outputs.input_names() and list(example) == ["text"]
        return row

    told = ask(decoder, "Wake me at noon. The alarm", max_new_tokens=6)
    assert told["perplexity"] == pytest.approx(math.exp(told["nats_a_token"])) and told["continuation"]
    assert ask(decoder, "")["tokens"] == 0
    filled = ask(encoder, "wake me [MASK] noon. now [MASK] old jazz.")
    assert len(filled["guesses"]) == 2 and all(len(row) == 5 for row in filled["guesses"])
    assert json.loads((encoder / "preprocessing.json").read_text())["objective"] == "masked"
    assert all(0 < sum(row) <= 1 + 1e-6 for row in filled["probabilities"])
