"""The search section: every key and value is checked against the schema before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from recaster.core.errors import RecipeError
from recaster.recipe.load import load_recipe, write_values
from recaster.recipe.search_space import list_values, searchable_keys, to_override

SEARCH = """
search:
  metric: validation_loss
  trials: 4
  seed: 1
  parameters:
    train.optimizer.learning_rate: { low: 1e-4, high: 1e-1, log: true }
    model.width: { low: 8, high: 16, step: 4 }
"""


@pytest.fixture
def recipe_path(project: Path) -> Path:
    path = project / "recipes" / "digits.yaml"
    path.write_text(path.read_text() + SEARCH)
    return path


def _with(path: Path, parameters: str, more: str = "") -> str:
    """The error of the recipe with these parameters, as people see it."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            path, [f"search={{parameters: {parameters}, metric: validation_loss, trials: 4, seed: 1{more}}}"]
        )
    return str(caught.value)


def test_a_search_is_part_of_the_recipe(recipe_path: Path) -> None:
    search = load_recipe(recipe_path).search
    assert search
    assert list_values("model.width", search.parameters["model.width"]) == [8, 12, 16]
    assert load_recipe(recipe_path, ["search.trials=9"]).search == search.model_copy(update={"trials": 9})


def test_an_unknown_key_names_line_and_nearest(recipe_path: Path) -> None:
    text = recipe_path.read_text().replace("optimizer.learning_rate: {", "optimizer.lerning_rate: {")
    recipe_path.write_text(text)
    line = next(n for n, found in enumerate(text.splitlines(), 1) if "lerning_rate" in found)
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_path)
    assert f"line {line}" in caught.value.where
    assert "did you mean 'train.optimizer.learning_rate'" in caught.value.repair


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("{split.seed: {low: 1, high: 3}}", "use keys of model, train, distributed, communication"),
        ("{train.optimizer: {low: 1, high: 3}}", "did you mean 'train.optimizer.name'"),
        ("{model.width: {low: 8, high: 64}}", "multiple of 4"),
        ("{model.width: {low: 8, high: 66, step: 4}}", "use 64"),
        ("{model.width: {low: 8.0, high: 64.0}}", "whole numbers"),
        ("{model.dropout: {low: 0, high: 1}}", "less than 1"),
        ("{model.dropout: {low: 0.5, high: 0.1}}", "must be below high"),
        ("{model.dropout: {low: 0, high: 0.5, log: true}}", "begins above 0"),
        ("{model.dropout: {low: 0.1, high: 0.5, step: 0.1, log: true}}", "has no step"),
        ("{model.dropout: {low: 0.1}}", "give low and high, or choices"),
        ("{model.dropout: {low: 0.1, choices: [0.2]}}", "choices stand alone"),
        ("{model.dropout: {low: 0.1, hihg: 0.2}}", "did you mean 'high'"),
        ("{train.optimizer.name: {choices: [adamw, sdg]}}", "'sdg'"),
        ("{train.optimizer.name: {choices: [sgd, sgd]}}", "choices repeat"),
        ("{train.optimizer.name: {low: 1, high: 2}}", "give choices"),
        ("{train.loss.name: {choices: [cross-entropy, brier]}}", "cannot be compared"),
        ("{}", "search.parameters"),
    ],
)
def test_values_that_make_no_recipe_are_told(recipe_path: Path, parameters: str, told: str) -> None:
    error = _with(recipe_path, parameters)
    assert told in error or told in error.replace("sdg", "'sdg'")
    assert "repair" in error


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (", sampler: grid", "add a step"),
        (", sampler: cmaes", "two ranges or more"),
        (", sampler: random, startup_trials: 3", "belongs to tpe, cmaes and gp"),
        (", pruner: {name: median, reduction_factor: 3}", "belongs to pruner successive-halving"),
        (", pruner: {name: none, startup_trials: 3}", "belongs to pruner median"),
        (", metric: test_loss", "search.metric"),
    ],
)
def test_options_that_would_do_nothing_are_refused(recipe_path: Path, more: str, told: str) -> None:
    if "metric" in more:
        with pytest.raises(RecipeError, match=r"search\.metric"):
            load_recipe(recipe_path, ["search.metric=test_loss"])
        return
    assert told in _with(recipe_path, "{model.dropout: {low: 0.1, high: 0.5}}", more)


def test_null_and_whole_sections_of_keys(recipe_path: Path) -> None:
    keys = searchable_keys()
    assert {"train.micro_batch_size", "distributed.mesh.data", "model.base"} <= set(keys)
    recipe = load_recipe(
        recipe_path,
        ["search.parameters={train.micro_batch_size: {choices: [null, 8]}, train.seed: {choices: [1]}}"],
    )
    assert recipe.search
    assert recipe.search.parameters["train.micro_batch_size"].choices == [None, 8]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("adamw", "adamw"),
        ("no", '"no"'),
        ("a: b", '"a: b"'),
        (None, "null"),
        (1.5e-05, "1.5e-05"),
        (True, "true"),
    ],
)
def test_a_value_reads_back_as_itself(value: object, text: str) -> None:
    from io import StringIO

    from ruamel.yaml import YAML

    assert to_override("a", value) == f"a={text}"
    assert YAML(typ="safe").load(StringIO(text)) == value


def test_the_best_values_go_into_the_recipe(recipe_path: Path) -> None:
    before = recipe_path.read_text()
    values = {"train.optimizer.learning_rate": 3.45e-05, "model.width": 12, "train.optimizer.name": "sgd"}
    write_values(recipe_path, values)
    recipe = load_recipe(recipe_path)
    assert (recipe.train.optimizer.learning_rate, recipe.model.width) == (3.45e-05, 12)
    comments = [line for line in before.splitlines() if "#" in line]
    assert all(line.partition("#")[2] in recipe_path.read_text() for line in comments)
    with pytest.raises(RecipeError):
        write_values(recipe_path, {"model.width": 13})
    assert load_recipe(recipe_path) == recipe
