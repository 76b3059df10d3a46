"""Teachers and what they refuse; what pruning cannot do; a registered model that teaches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recaster import pipeline
from recaster.core.errors import RecipeError
from recaster.core.progress import SilentReporter
from recaster.customization.build import build_customized
from recaster.customization.distil import TEACHER, Distil
from recaster.data.synthetic import LABELS, make_requests
from recaster.data.tokenizers import train_byte_pairs
from recaster.models import small_cnn
from recaster.models.losses import build_loss
from recaster.pipeline.inputs import training_plan
from tests.conftest import ROOT
from tests.contract.method_runs import make_project, write_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("smaller_models")]
_LICENCE = "teacher_licence: Apache-2.0"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("smaller") / "a project", labels=list(LABELS))


def _build(recipe: Path, *overrides: str) -> Any:
    cast = pipeline.open_cast(recipe, overrides)
    prepared = pipeline.run_to(cast, "prepare", SilentReporter())
    return build_customized(cast.workload, training_plan(cast, prepared))


def _distil(options: str) -> tuple[str, str]:
    return "customize.method=distil", f"customize.distil={{teacher: 'path:teacher', {_LICENCE}, {options}}}"


def _change_teacher(recipe: Path, name: str, **changes: Any) -> str:
    """Another teacher in the project; returns what names it."""
    other = recipe.parent / name
    shutil.copytree(recipe.parent / "teacher", other)
    write_model(other, seed=4, **changes)
    return f"customize.distil={{teacher: 'path:{name}', {_LICENCE}, layers: 1}}"


def test_a_wider_teacher_is_compared_through_a_projection(recipe: Path) -> None:
    wider = _change_teacher(recipe, "wider", labels=list(LABELS), hidden_size=48, num_hidden_layers=4)
    model = _build(recipe, "customize.method=distil", wider)
    assert model.project.weight.shape == (48, 32) and model.project.weight.requires_grad
    assert model.student.config.num_hidden_layers == 1 and model.student.config.hidden_size == 32
    tokens = torch.tensor([[2, 40, 41, 3], [2, 50, 3, 0]])
    outputs = model.train()(tokens)
    assert outputs.shape == (2, 9) and (outputs[:, -1] > 0).all()
    assert not model.teacher.training and model.eval()(tokens).shape == (2, 4)
    outputs.sum().backward()
    assert model.project.weight.grad.abs().sum() > 0
    assert all(value.grad is None for value in model.teacher.parameters())


def test_padding_does_not_count_in_the_distance(recipe: Path) -> None:
    model = _build(recipe, *_distil("layers: 1"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    short, long = torch.tensor([[2, 50, 3]]), torch.tensor([[2, 50, 3, 0, 0, 0]])
    torch.testing.assert_close(model.train()(short), model.train()(long), atol=1e-5, rtol=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_but_the_labels() -> None:
    section = {"logits_weight": 0.7, "temperature": 2.0, "hidden_weight": 1.0}
    labels = build_loss(
        {"name": "cross-entropy", "label_smoothing": 0.0, "class_weights": None}, training=True
    )
    mixed = Distil().build_loss(labels, {"customize": {"distil": section}})
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    same = torch.cat([logits, logits, torch.zeros(6, 1)], 1)
    torch.testing.assert_close(mixed(same, targets), 0.3 * labels(logits, targets))
    other = torch.cat([logits, logits.roll(1, 0), torch.ones(6, 1)], 1)
    heat = torch.nn.KLDivLoss(reduction="sum")(
        (logits / 2).log_softmax(1), (logits.roll(1, 0) / 2).softmax(1)
    )
    torch.testing.assert_close(mixed(other, targets), 0.3 * labels(logits, targets) + 0.7 * 4 * heat + 6)


def test_a_teacher_for_other_labels_is_refused(recipe: Path) -> None:
    other = _change_teacher(recipe, "foreign", labels=["weather", "alarm", "message", "music"])
    with pytest.raises(
        RecipeError, match=r"not trained for these labels(.|\n)*it knows weather, alarm, message"
    ):
        _build(recipe, "customize.method=distil", other)


def test_a_teacher_with_other_tokens_is_refused(recipe: Path) -> None:
    other = _change_teacher(recipe, "speaks", labels=list(LABELS))
    texts = [record.text.swapcase()[::-1] for record in make_requests()]
    shutil.rmtree(recipe.parent / "words", ignore_errors=True)
    train_byte_pairs(texts, vocabulary=400, folder=recipe.parent / "words")
    shutil.copy(recipe.parent / "words" / "tokenizer.json", recipe.parent / "speaks")
    with pytest.raises(RecipeError, match="do not read the same tokens"):
        _build(recipe, "customize.method=distil", other)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (_distil("layers: 3"), "3 of 2"),
        (("customize.method=prune", "customize.prune={structure: neurons, fraction: 0.001}"), "none or all"),
        (("customize.method=prune", "customize.prune={structure: neurons, fraction: 0.999}"), "none or all"),
    ],
)
def test_numbers_that_do_not_fit_the_model_are_refused(
    recipe: Path, overrides: tuple[str, str], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        _build(recipe, *overrides)


def test_pruning_says_where_units_cannot_be_dropped() -> None:
    from recaster.customization.prune import METHOD

    size = {"channels": 1, "height": 8, "width": 8, "classes": 3, "hidden": 8}
    model = small_cnn.build_model(**size, dropout=0.0, activation="relu")
    section = {"customize": {"prune": {"structure": "neurons", "fraction": 0.5}}}
    with pytest.raises(RecipeError, match="cannot say how many units"):
        METHOD.apply(model, section)
    section["customize"]["prune"]["structure"] = "weights"
    pruned = METHOD.merge(METHOD.apply(model, section), section)
    kernels = [part.weight for part in pruned.modules() if isinstance(part, torch.nn.Conv2d)]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    assert zeros == pytest.approx(sum(kernel.numel() for kernel in kernels) / 2, abs=2)
    assert (pruned.head[2].weight != 0).all()


def test_a_registered_model_teaches_and_its_licences_come_along(recipe: Path) -> None:
    quick = ["train.epochs=1", "evaluate.bootstrap_samples=100"]
    licences = ["model.licence=MIT", "accept_licences=[MIT, Apache-2.0]"]
    assert pipeline.run(pipeline.open_cast(recipe, [*quick, *licences]), SilentReporter()).accepted
    champion = "models:/tiny@champion"
    model = f"model={{base: '{champion}'}}"
    distil = ["customize.method=distil", f"customize.distil={{teacher: '{champion}', layers: 1}}", *quick]
    with pytest.raises(RecipeError, match=r"MIT AND Apache-2\.0; accepted: Apache-2\.0"):
        pipeline.run_to(
            pipeline.open_cast(recipe, ["name=student", model, *distil]), "train", SilentReporter()
        )
    cast = pipeline.open_cast(recipe, ["name=student", model, *distil, licences[1]])
    summary = pipeline.run(cast, SilentReporter())
    assert summary.accepted and pipeline.find_finished(cast)
    (ref,) = [step.ref for step in summary.steps if step.step == "register"]
    card = (cast.settings.steps / ref / "model" / "README.md").read_text()
    assert "| teacher | `models:/tiny/1` | MIT AND Apache-2.0 |" in card
    assert "licence_chain: MIT AND Apache-2.0\n" in card


def test_a_small_network_for_pictures_learns_from_a_larger_one(tmp_path: Path) -> None:
    project = tmp_path / "pictures"
    project.mkdir()
    shutil.copy(ROOT / "recipes" / "image-classification" / "tiny.yaml", project)
    quick = ["train.epochs=2", "evaluate.bootstrap_samples=100", "gate.bars=[{metric: accuracy, min: 0.2}]"]
    teacher = pipeline.open_cast(project / "tiny.yaml", quick)
    assert pipeline.run(teacher, SilentReporter()).accepted
    section = f"{{teacher: 'models:/{teacher.recipe.name}@champion', hidden_weight: 0}}"
    overrides = [
        "name=student",
        "model.width=4",
        "customize.method=distil",
        f"customize.distil={section}",
        *quick,
    ]
    student = pipeline.open_cast(project / "tiny.yaml", overrides)
    trained = pipeline.run_to(student, "train", SilentReporter())
    assert not [name for name in load_file(trained.path / "weights.safetensors") if name.startswith(TEACHER)]
    assert trained.facts["parameters"] == trained.facts["trained_parameters"]
    artifact = pipeline.run_to(student, "export", SilentReporter()).path
    assert load_file(artifact / "model.safetensors")["features.0.weight"].shape[0] == 4
    needs_layers = [*overrides[:3], f"customize.distil={section.replace('hidden_weight: 0', 'layers: 1')}"]
    with pytest.raises(RecipeError, match="a list of like layers"):
        _build(project / "tiny.yaml", *needs_layers)
