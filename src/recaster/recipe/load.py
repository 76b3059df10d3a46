"""Reading a recipe: YAML in, a checked `Recipe` out, every error with its line and its repair."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from recaster.core.errors import RecipeError
from recaster.core.files import write_bytes
from recaster.core.hashing import canonical_json, hash_value
from recaster.recipe.schema import Recipe
from recaster.recipe.search import SearchSection
from recaster.recipe.search_space import find_misfit, to_override

_Location = tuple[int | str, ...]


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check the recipe at `path`.

    Args:
        overrides: `section.key=value` texts; the value is read as YAML.

    Raises:
        RecipeError: names the key, the line and the nearest right key.
    """
    tree = _read_tree(path)
    settings = [_parse_override(text) for text in overrides]
    for keys, value in settings:
        _set_value(tree, keys, value)
    try:
        recipe = Recipe.model_validate(_plain(tree))
    except ValidationError as error:
        overridden = {keys for keys, _ in settings}
        raise _explain(error, path, tree, overridden) from None
    if recipe.search:
        _check_search(recipe.search, path, tree)
    return recipe


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Set dotted keys in the recipe file at `path`; comments and order stay.

    Raises:
        RecipeError: the recipe with these values is wrong; the file is as it was.
    """
    load_recipe(path, [to_override(key, value) for key, value in values.items()])
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096  # lines are not broken
    yaml.indent(mapping=2, sequence=4, offset=2)  # as recipes are written: only the values should differ
    tree = yaml.load(path.read_text(encoding="utf-8"))
    for key, value in values.items():
        _set_value(tree, key.split("."), value)
    text = StringIO()
    yaml.dump(tree, text)
    write_bytes(path, text.getvalue().encode())


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as canonical JSON, defaults filled in."""
    return canonical_json(recipe.model_dump(mode="json"))


def parse_recipe(text: str) -> Recipe:
    """The recipe that `dump_recipe` wrote."""
    return Recipe.model_validate_json(text)


def hash_recipe(recipe: Recipe) -> str:
    """The recipe's fingerprint: sha256 (hex) of its canonical JSON."""
    return hash_value(recipe.model_dump(mode="json"))


def _read_tree(path: Path) -> CommentedMap:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            "The recipe cannot be read.",
            where=str(path),
            value=error.strerror,
            repair="name an existing file, or make one with `recaster new NAME`",
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            "The recipe is not UTF-8 text.", where=f"{path}, byte {error.start}", repair="save it as UTF-8"
        ) from None
    try:
        tree = YAML(typ="rt").load(text)
    except YAMLError as error:
        raise RecipeError(
            "The recipe is not valid YAML.",
            where=str(path),
            value=str(error),
            repair="correct the syntax there",
        ) from None
    if not isinstance(tree, CommentedMap):
        raise RecipeError(
            "The recipe is not a mapping of sections.",
            where=str(path),
            value=type(tree).__name__,
            repair="start from `recaster new NAME`",
        )
    return tree


def _plain(value: Any) -> Any:
    """Strip ruamel's line-keeping types, so that strict validation sees plain ones."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(
            "An override is not of the form section.key=value.",
            where="--set",
            value=text,
            repair="for example --set train.epochs=3",
        )
    try:
        parsed = YAML(typ="safe").load(StringIO(value))
    except YAMLError as error:
        raise RecipeError(
            "An override's value is not valid YAML.",
            where=f"--set {key}",
            value=f"{value} ({error})",
            repair="put the value in quotes, as it would stand in the recipe",
        ) from None
    return tuple(key.split(".")), parsed


def _set_value(tree: Any, keys: Sequence[str], value: Any) -> None:
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(tree, list):
            index = int(key) if key.isdigit() else -1
            if not 0 <= index < len(tree):
                raise RecipeError(
                    "An override names an entry that is not there.",
                    where=f"--set {'.'.join(keys)}",
                    value=key,
                    repair=f"use a number from 0 to {len(tree) - 1}",
                )
            if last:
                tree[index] = value
            tree = tree[index]
        elif isinstance(tree, dict):
            if last:
                tree[key] = value
            elif tree.get(key) is None:
                tree[key] = CommentedMap()
            tree = tree[key]
        else:
            raise RecipeError(
                "An override goes into a plain value.",
                where=f"--set {'.'.join(keys)}",
                value=f"{'.'.join(keys[:depth])} is {tree!r}",
                repair="name a key of a section",
            )


def _check_search(search: SearchSection, path: Path, tree: CommentedMap) -> None:
    def try_value(key: str, value: Any) -> str:
        varied = _plain(tree)
        _set_value(varied, key.split("."), value)
        try:
            Recipe.model_validate(varied)
        except ValidationError as error:
            return str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        return ""

    if misfit := find_misfit(search, try_value):
        line = _line_of(tree, ("search", "parameters", misfit.key))
        where = f"{path}, line {line}" if line else str(path)
        raise RecipeError(
            misfit.what,
            where=f"{where}, key search.parameters.{misfit.key}",
            value=misfit.value,
            repair=misfit.repair,
        )


def _explain(
    error: ValidationError, path: Path, tree: CommentedMap, overridden: set[tuple[str, ...]]
) -> RecipeError:
    details = error.errors(include_url=False)
    # An unknown key is most often the cause of the missing one beside it: name it first.
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    first, rest = details[0], details[1:]
    key = ".".join(str(part) for part in first["loc"]) or "(whole recipe)"
    line = _line_of(tree, first["loc"])
    where = f"{path}, line {line}, key {key}" if line else f"{path}, key {key}"
    if any(tuple(map(str, first["loc"]))[: len(keys)] == keys for keys in overridden):
        where = f"--set {key}"
    what, value, repair = _describe(first)
    if rest:
        others = ", ".join(".".join(str(part) for part in detail["loc"]) for detail in rest)
        repair += f" (also wrong: {others})"
    return RecipeError(what, where=where, value=value, repair=repair)


def _describe(detail: ErrorDetails) -> tuple[str, object, str]:
    location = detail["loc"]
    if detail["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "remove it"
        return (
            "The recipe has a key that does not exist.",
            str(location[-1]),
            f"{hint} Known here: {', '.join(known)}",
        )
    if detail["type"] == "missing":
        return "The recipe lacks a key.", None, f"add {location[-1]!r}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"The recipe has a wrong value: {message}.", repr(detail["input"]), message


def _keys_at(location: _Location) -> list[str]:
    """The legal keys of the section at `location`, read off the schema."""
    model: type[BaseModel] = Recipe
    for part in location:
        if isinstance(part, int) or part not in model.model_fields:  # an entry of a list or a mapping
            continue
        annotation = model.model_fields[part].annotation
        model = next(
            (
                kind
                for kind in (annotation, *get_args(annotation))
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            ),
            model,
        )
    return list(model.model_fields)


def _line_of(tree: Any, location: _Location) -> int | None:
    line: int | None = None
    for part in location:
        try:
            position = tree.lc.key(part) if hasattr(tree, "keys") else tree.lc.item(part)
            line, tree = position[0] + 1, tree[part]
        except (KeyError, IndexError, AttributeError, TypeError):
            break
    return line
