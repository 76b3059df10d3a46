"""Classifiers over the mean of a sentence encoder's tokens: from a base folder to answers elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_json
from recaster.core.progress import SilentReporter
from recaster.core.steps import StepResult
from recaster.data.synthetic import make_requests
from recaster.data.tokenizers import train_byte_pairs
from recaster.models.sentence_models import build_sentence_classifier
from recaster.recipe.load import load_recipe
from tests.conftest import ROOT
from tests.integration.text_answers import check_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("sentence-models")]
_TINY = ROOT / "recipes" / "text-classification" / "tiny.yaml"
_BASE = ("model.base=path:base", "model.licence=Apache-2.0", "model.pooling=mean")
_CAMPAIGN, _HALF = pytest.mark.campaign, "{structure: weights, fraction: 0.5}"
_LONGER = ("train.epochs=6", "train.optimizer.learning_rate=0.003", "evaluate.bootstrap_samples=100")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a small BERT of fresh weights as its base, and the tokenizer of the synthetic requests."""
    from transformers import AutoConfig, AutoModel

    folder = tmp_path_factory.mktemp("sentences")
    base = folder / "base"
    train_byte_pairs([record.text or "" for record in make_requests()], vocabulary=400, folder=base)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model("bert", vocab_size=400, max_position_embeddings=80, **sizes)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(base)
    (folder / "recipes").mkdir()
    shutil.copy(_TINY, folder / "recipes")
    shutil.copy(ROOT / "dvc.yaml", folder)
    return folder


def _cast(project: Path, *overrides: str) -> tuple[pipeline.Cast, StepResult, Path]:
    cast = pipeline.open_cast(project / "recipes" / "tiny.yaml", (*_BASE, *_LONGER, *overrides))
    evaluated = pipeline.run_to(cast, "evaluate", SilentReporter())
    return cast, evaluated, pipeline.run_to(cast, "export", SilentReporter()).path


def test_the_head_sees_the_mean_of_the_encoders_tokens(project: Path) -> None:
    from transformers import AutoModel

    model = build_sentence_classifier(project / "base", labels=["a", "b", "c"], padding=0).eval()
    assert sorted(model.report.reinitialised) == ["head.bias", "head.weight"]
    rows = torch.tensor([[2, 17, 33, 5, 3], [2, 9, 3, 0, 0]])
    published = AutoModel.from_pretrained(project / "base").eval()
    with torch.no_grad():
        states = published(input_ids=rows, attention_mask=(rows != 0).long()).last_hidden_state
        found = model.encode(rows)
        alone = model.encode(rows[1:, :3])
    wanted = torch.stack([states[0].mean(0), states[1, :3].mean(0)])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, wanted[1:], atol=1e-5, rtol=1e-5)


def test_an_artifact_answers_alike_everywhere_and_is_a_base(project: Path, tmp_path: Path) -> None:
    cast, evaluated, artifact = _cast(project)
    assert evaluated.facts["metrics"]["accuracy"]["value"] > 0.9  # four labels, told apart by their words
    assert read_json(artifact / "config.json")["architecture"] == "sentence_classifier"
    check_answers(cast, tmp_path / "onnx")
    # Trained on, it keeps its head for the same labels, whatever the recipe says of pooling.
    labels = cast.recipe.data.labels
    again = build_sentence_classifier(artifact, labels=labels, padding=0)
    assert again.report.reinitialised == ()
    assert build_sentence_classifier(artifact, labels=labels[::-1], padding=0).report.reinitialised
    shutil.copytree(artifact, project / "artifact", dirs_exist_ok=True)
    more = ("model.base=path:artifact", "model.pooling=first", "train.epochs=1")
    _, later, _ = _cast(project, *more)
    assert later.facts["metrics"]["accuracy"]["value"] > 0.9


@pytest.mark.parametrize(
    ("method", "share"),
    [
        pytest.param("customize.method=probe", 0.02, id="probe"),
        pytest.param("customize={method: lora, lora: {rank: 4}}", 0.1, id="lora"),
        pytest.param("customize.method=bitfit", 0.1, id="bitfit", marks=_CAMPAIGN),
        pytest.param(f"customize={{method: prune, prune: {_HALF}}}", 1.0, id="prune", marks=_CAMPAIGN),
        pytest.param("customize.method=quantize", 1.0, id="quantize", marks=_CAMPAIGN),
    ],
)
def test_it_is_customized_by_each_method(project: Path, method: str, share: float) -> None:
    cast, evaluated, artifact = _cast(project, method, "train.optimizer.learning_rate=0.02", "train.epochs=8")
    facts = pipeline.run_to(cast, "train", SilentReporter()).facts
    assert 0 < facts["trained_parameters"] <= share * facts["parameters"]
    assert evaluated.facts["metrics"]["accuracy"]["value"] > 0.5
    assert (artifact / "modeling.py").exists()


def test_what_has_no_such_mean_is_refused(tmp_path: Path) -> None:
    for workload, override in (("text-classification", ""), ("chat", "model.base=path:base")):
        with pytest.raises(RecipeError, match="pooling"):
            load_recipe(
                ROOT / "recipes" / workload / "tiny.yaml", [*filter(None, [override]), "model.pooling=mean"]
            )
    write_json(tmp_path / "config.json", {"model_type": "distilbert"})
    with pytest.raises(RecipeError, match="BERT kind"):
        build_sentence_classifier(tmp_path, labels=["a", "b"], padding=0)
