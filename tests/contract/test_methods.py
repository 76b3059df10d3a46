"""What every customization method must do, examined on one tiny text model; found by looking.

src/recaster/customization/bitfit.py   METHOD = …
"""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recaster.core.files import read_json
from recaster.core.hashing import hash_file
from recaster.customization.build import build_customized
from recaster.customization.distil import TEACHER, choose_layers
from recaster.data.synthetic import LABELS
from tests.conftest import ROOT
from tests.contract.method_runs import OPTIONS, VARIANTS, Method, make_project, plan_method
from tests.integration.training_task import cut_at_half, train_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("methods")]
_MODULES = ROOT / "src" / "recaster" / "customization"
_PLANS = {name: (name, options) for name, options in OPTIONS.items()}
_PLANS |= {f"{name}-other": (name, options) for name, options in VARIANTS.items()}
_OF_CHAT = {"prompt", "prefix"}
"""Those of language models, in integration/test_chat_models.py."""
_SHARE = {"bitfit": 0.2, "lora": 0.4, "lora-other": 0.4, "probe": 0.2}
"""At most so much is trained; of this tiny model the head alone is much. The rest train all."""


def _has_method(path: Path) -> bool:
    body = ast.parse(path.read_text()).body
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return any(isinstance(target, ast.Name) and target.id == "METHOD" for target in targets)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Method]:
    folder = tmp_path_factory.mktemp("methods")
    patch = pytest.MonkeyPatch()
    for name in ("RECASTER_HOME", "MLFLOW_TRACKING_URI"):
        patch.delenv(name, raising=False)
    recipe = make_project(folder / "a project", labels=list(LABELS))
    methods = {key: plan_method(recipe, *about, folder / key) for key, about in _PLANS.items()}
    patch.undo()
    train_all([method.run_dir for method in methods.values()])
    return methods


@pytest.fixture(params=_PLANS)
def method(request: pytest.FixtureRequest, trained: dict[str, Method]) -> Method:
    return trained[request.param]


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["method"])


def test_every_method_is_examined() -> None:
    found = {path.stem for path in _MODULES.glob("*.py") if _has_method(path)}
    assert found == set(OPTIONS) | _OF_CHAT


def test_it_is_made_the_same_each_time(method: Method) -> None:
    first = build_customized(method.cast.workload, method.plan).state_dict()
    torch.manual_seed(99)
    second = build_customized(method.cast.workload, method.plan).state_dict()
    assert first.keys() == second.keys()
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


def test_training_lowers_the_loss(method: Method) -> None:
    losses = method.losses()
    quarter = len(losses) // 4
    assert np.isfinite(losses).all()
    assert np.mean(losses[-quarter:]) < np.mean(losses[:quarter])


def test_what_is_frozen_stays(method: Method) -> None:
    before, after = build_customized(method.cast.workload, method.plan), method.trained()
    frozen = {name for name, value in before.named_parameters() if not value.requires_grad}
    moved = {
        name for name, value in after.named_parameters() if not torch.equal(value, before.get_parameter(name))
    }
    assert moved and not moved & frozen
    assert not set(load_file(method.weights)) & frozen


def test_its_share_of_the_parameters_is_trained(method: Method, key: str) -> None:
    result = read_json(method.run_dir / "result.json")
    share = result["trained_parameters"] / result["parameters"]
    limit = _SHARE.get(key)
    assert share == 1.0 if limit is None else 0 < share <= limit, share


def test_merged_it_answers_the_same(method: Method) -> None:
    torch.testing.assert_close(
        method.answers(method.merged()), method.answers(method.trained()), atol=1e-5, rtol=0
    )


def test_plain_transformers_reads_what_it_exports(method: Method, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    method.cast.workload.export(method.plan, method.cast.recipe, method.weights, tmp_path)
    network, told = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = method.batch()
    with torch.no_grad():
        logits = network.eval()(input_ids=tokens, attention_mask=(tokens != 0).long()).logits
    torch.testing.assert_close(logits, method.answers(method.trained()), atol=1e-5, rtol=0)
    assert list(network.config.id2label.values()) == list(LABELS)


def test_they_resume_bit_for_bit(trained: dict[str, Method], tmp_path: Path) -> None:
    whole = [trained[key].run_dir for key in ("distil", "lora", "prune-other", "quantize")]
    cut = [cut_at_half(run_dir, tmp_path) for run_dir in whole]
    train_all(cut)
    for first, second in zip(whole, cut, strict=True):
        assert read_json(second / "result.json")["resumed_at"] > 0
        assert hash_file(second / "weights.safetensors") == hash_file(first / "weights.safetensors"), first


def test_distilled_it_is_smaller_and_the_teacher_stays_behind(trained: dict[str, Method]) -> None:
    method = trained["distil"]
    assert not [name for name in load_file(method.weights) if name.startswith(TEACHER)]
    student, base = method.merged(), trained["full"].merged()
    assert student.config.num_hidden_layers == 1 and base.config.num_hidden_layers == 2
    name = "network.bert.encoder.layer.{}.attention.self.query.weight"
    fresh = build_customized(method.cast.workload, method.plan)
    first = fresh.get_parameter(f"student.{name.format(0)}")
    assert torch.equal(first, fresh.get_parameter(TEACHER + name.format(1)))
    assert [choose_layers(6, wanted) for wanted in (1, 2, 3, 4, 6)] == [
        [5], [2, 5], [1, 3, 5], [0, 2, 3, 5], [0, 1, 2, 3, 4, 5],
    ]  # fmt: skip


def test_pruned_weights_are_nought_and_pruned_neurons_are_gone(trained: dict[str, Method]) -> None:
    layers = trained["prune-other"].merged().network.bert.encoder.layer
    matrices = [value for name, value in layers.named_parameters() if value.ndim == 2]
    zeros = sum(int((value == 0).sum()) for value in matrices) / sum(value.numel() for value in matrices)
    assert zeros == pytest.approx(0.5, abs=1e-3)
    smaller = trained["prune"].merged()
    assert smaller.config.intermediate_size == 32
    assert smaller.network.bert.encoder.layer[0].intermediate.dense.weight.shape == (32, 32)


def test_quantized_weights_lie_on_the_grid(trained: dict[str, Method]) -> None:
    weight = trained["quantize"].merged().network.bert.encoder.layer[1].output.dense.weight.detach()
    steps = weight / (weight.abs().amax(1, keepdim=True) / 127)
    assert (steps - steps.round()).abs().max() < 1e-3 and steps.round().unique().numel() > 10
