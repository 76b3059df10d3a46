"""Recipes: strict, with the line and the repair in every error."""

from __future__ import annotations

from pathlib import Path

import pytest

from recaster.core.errors import RecipeError
from recaster.recipe.load import dump_recipe, hash_recipe, load_recipe, parse_recipe
from tests.conftest import ROOT


@pytest.fixture
def recipe_path(project: Path) -> Path:
    return project / "recipes" / "digits.yaml"


def test_round_trip_keeps_the_fingerprint(recipe_path: Path) -> None:
    recipe = load_recipe(recipe_path)
    assert hash_recipe(parse_recipe(dump_recipe(recipe))) == hash_recipe(recipe)


def test_unknown_key_names_line_and_nearest(recipe_path: Path) -> None:
    text = recipe_path.read_text().replace("  epochs: 30", "  epohcs: 30")
    line = text.splitlines().index("  epohcs: 30") + 1
    recipe_path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_path)
    assert f"line {line}" in caught.value.where
    assert "did you mean 'epochs'" in caught.value.repair


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.epochs=many", "train.epochs"),
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=1.5", "train.epochs"),
        ("gate.champion.metric=luck", "gate.champion.metric"),
        ("distributed.strategy=single", "distributed"),
        ("split.test=0.95", "split"),
        ("data.labels=['a','a']", "data"),
        ("train.optimiser.name=sgd", "train.optimiser"),
        ("model.width=30", "model.width"),
    ],
)
def test_wrong_values_are_named(recipe_path: Path, override: str, named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_path, [override])
    assert named in caught.value.where
    assert caught.value.repair


@pytest.mark.parametrize("override", ["train.epochs", "=3", "name.deep=3", "gate.bars.7.min=1"])
def test_malformed_overrides(recipe_path: Path, override: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(recipe_path, [override])


@pytest.mark.parametrize("content", [b"", b"- a\n", b"a: [\n", b"\xff\xfe"])
def test_what_is_not_a_recipe(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError):
        load_recipe(path)


def test_override_changes_only_its_key(recipe_path: Path) -> None:
    before, after = load_recipe(recipe_path), load_recipe(recipe_path, ["train.optimizer.learning_rate=0.1"])
    assert after.train.optimizer.learning_rate == 0.1
    assert after.model_copy(update={"train": before.train}) == before


@pytest.mark.parametrize(
    ("overrides", "repair"),
    [
        (["distributed.ranks=4", "distributed.mesh={data: 2}"], "needs ranks: 2, not 4"),
        (["distributed.mesh={data: 1, tensor: 2}"], "use tensor"),
        (["distributed.mesh={pipe: 2}"], "use pipeline"),
        (["distributed.strategy=tensor", "distributed.mesh={data: 2}"], "needs mesh.tensor of 2 or more"),
        (["distributed.mesh={rows: 2}"], "Known here: data, shard, pipe, tensor"),
        (["distributed.stages_per_rank=2"], "remove it"),
        (["distributed.strategy=pipeline"], "needs train.micro_batch_size"),
        (["train.batch_size=1"], "set it to 2 or more"),
        (
            [
                "distributed.strategy=pipeline",
                "distributed.stages_per_rank=2",
                "train.batch_size=15",
                "train.micro_batch_size=3",
            ],
            "multiple of 2",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_is_told(recipe_path: Path, overrides: list[str], repair: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_path, overrides)
    assert repair in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "mesh"),
    [
        (["distributed.strategy=fsdp"], {"shard": 2}),
        (["distributed.strategy=tensor", "distributed.ranks=4"], {"tensor": 4}),
        (["distributed.strategy=pipeline", "train.micro_batch_size=8"], {"pipe": 2}),
        (["distributed.ranks=4", "distributed.strategy=fsdp", "distributed.mesh={data: 2, shard: 2}"], None),
    ],
)
def test_without_a_mesh_all_ranks_are_the_strategys_own(
    recipe_path: Path, overrides: list[str], mesh: dict[str, int] | None
) -> None:
    recipe = load_recipe(recipe_path, overrides)
    whole = {"data": 1, "shard": 1, "pipe": 1, "tensor": 1}
    assert recipe.distributed.mesh.model_dump() == {**whole, **(mesh or {"data": 2, "shard": 2})}
    assert hash_recipe(parse_recipe(dump_recipe(recipe))) == hash_recipe(recipe)


@pytest.mark.parametrize(
    ("recipe", "override", "told"),
    [
        ("text-classification", "evaluate.flip=true", "face-recognition or image-classification"),
        ("object-detection", "evaluate.shift_pixels=2", "belongs to the workload image-classification"),
        ("image-classification", "evaluate.beams=2", "belongs to the workload translation"),
        ("chat", "evaluate.calibration_bins=5", "image-classification or text-classification"),
        ("translation", "evaluate.false_accept_rate=0.1", "belongs to the workload face-recognition"),
        ("image-classification", "train.loss.name=set-prediction", "not for workload image-classification"),
        ("object-detection", "train.loss.name=cross-entropy", "use focal, set-prediction"),
    ],
)
def test_options_that_would_do_nothing_are_refused(recipe: str, override: str, told: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_recipe(ROOT / "recipes" / recipe / "tiny.yaml", [override])
    assert told in str(refused.value)


def test_options_of_boxes_are_refused_elsewhere() -> None:
    """An option that would do nothing is named."""
    with pytest.raises(RecipeError, match="pictures with boxes"):
        load_recipe(ROOT / "recipes" / "digits.yaml", ["train.augmentation.vertical_flip=true"])
    tiny = ROOT / "recipes" / "object-detection" / "tiny.yaml"
    assert load_recipe(tiny, ["train.augmentation.vertical_flip=true"]).train.augmentation.vertical_flip
    with pytest.raises(RecipeError, match="not boxes"):
        load_recipe(tiny, ["train.loss.consistency=1.0"])
