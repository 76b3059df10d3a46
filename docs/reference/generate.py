"""Write the reference pages from their sources: the command's own --help, and the recipe's schema.

python docs/reference/generate.py      (or `make reference`; a guard test checks that they agree)
"""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from recaster.cli.main import app
from recaster.recipe import (
    adversary,
    communication,
    customize,
    data,
    distributed,
    evaluation,
    policy,
    schema,
    search,
    training,
    trees,
    words,
)
from recaster.recipe.metrics import METRICS

HERE = Path(__file__).parent
_MADE = "<!-- Made by docs/reference/generate.py; edit the source instead. -->\n"
_COLUMNS = 100


def render_command() -> str:
    """The page of the command: each subcommand's help, as it prints it."""
    app.rich_markup_mode = None  # plain text, whatever the terminal
    names = [
        info.name or info.callback.__name__
        for info in app.registered_commands
        if info.callback and not info.hidden
    ]
    parts = [f"{_MADE}# The command\n", f"```\n{_help()}\n```\n"]
    parts += [f"## recaster {name}\n\n```\n{_help(name)}\n```\n" for name in names]
    for group in app.registered_groups:
        group.typer_instance.rich_markup_mode = None
        name = str(group.typer_instance.info.name)
        parts.append(f"## recaster {name}\n\n```\n{_help(name)}\n```\n")
        inner = [info.name for info in group.typer_instance.registered_commands]
        parts += [f"### recaster {name} {verb}\n\n```\n{_help(name, verb)}\n```\n" for verb in inner]
    parts.append(
        "## Exit codes\n\n0 done; 1 failed; 2 wrong usage or recipe; 3 data refused by its contract; "
        "4 the gate said no;\n5 a service did not answer; 130 stopped by Ctrl-C.\n"
    )
    return "\n".join(parts)


def _help(*names: str) -> str:
    result = CliRunner().invoke(app, [*names, "--help"], prog_name="recaster", terminal_width=_COLUMNS)
    if result.exit_code:
        raise RuntimeError(f"recaster {' '.join(names)} --help: {result.output}")
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def render_recipe() -> str:
    """The page of the recipe: a table a section, depth first; key, type, default, meaning."""
    tree = schema.Recipe.model_json_schema()
    parts = [f"{_MADE}# The recipe\n", "A key without a default is a decision that every recipe states.\n"]
    parts += _render_section("Recipe", "", tree, tree["$defs"])
    metrics = (f"- `{name}`: {direction} is better" for name, direction in METRICS.items())
    parts.append("## Metrics\n\nWhat a bar or a comparison can name:\n\n" + "\n".join(metrics) + "\n")
    return "\n".join(parts)


_WORDS = {
    "boolean": "true or false",
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "null": "nothing",
}
_STEP_DOWN = {"array": ".N", "object": ".KEY"}
"""How the path goes on below a list and below a mapping."""


def _render_section(name: str, path: str, section: dict[str, Any], known: dict[str, Any]) -> list[str]:
    meanings = _meanings(name)
    heading = f"## {path.rstrip('.')}\n\n" if path else ""
    rows = [f"{heading}{section['description']}\n", "| key | type | default | meaning |", "|---|---|---|---|"]
    below: list[str] = []
    for key, field in section["properties"].items():
        inner = _reference(field)
        meaning = meanings.get(key) or (known[inner]["description"] if inner else "")
        text = " ".join(meaning.split()).replace("|", "\\|")
        rows.append(f"| `{path}{key}` | {_type(field)} | {_default(key, field, section)} | {text} |")
        if inner:
            deeper = f"{path}{key}{_STEP_DOWN.get(field.get('type', ''), '')}."
            below += _render_section(inner, deeper, known[inner], known)
    return ["\n".join(rows) + "\n", *below]


def _meanings(section: str) -> dict[str, str]:
    """The text under each field of a section."""
    kinds = [kind for kind in _find_section(section).__mro__ if kind.__module__.startswith("recaster.")]
    return {key: text for kind in reversed(kinds) for key, text in _own_meanings(kind).items()}


def _own_meanings(kind: type) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: text.value.value
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _find_section(name: str) -> type:
    places = (
        *(schema, evaluation, customize, data, training, adversary),
        *(distributed, communication, policy, search, trees, words),
    )
    return next(getattr(place, name) for place in places if hasattr(place, name))


def _reference(field: dict[str, Any]) -> str:
    """The section that the field holds, or a list of; empty for a plain value."""
    inner = [
        place for place in (field.get("items"), field.get("additionalProperties")) if isinstance(place, dict)
    ]
    for place in (field, *inner, *field.get("anyOf", [])):
        if "$ref" in place:
            return str(place["$ref"]).rsplit("/", 1)[-1]
    return ""


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "$ref" in field:
        return "section"
    if choices := field.get("enum") or ([field["const"]] if "const" in field else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    if field.get("type") == "array":
        return "list of values" if "anyOf" in field["items"] else f"list of {_type(field['items'])}s"
    if field.get("type") == "object":
        return "sections by key"
    return _WORDS[field["type"]] + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {json.dumps(field[name])}" for name, sign in signs.items() if name in field]
    bounds += [f"a multiple of {field['multipleOf']}"] if "multipleOf" in field else []
    bounds += [f"`{field['pattern']}`"] if "pattern" in field else []
    return f", {', '.join(bounds)}" if bounds else ""


def _default(key: str, field: dict[str, Any], section: dict[str, Any]) -> str:
    if key in section.get("required", []):
        return "**stated**"
    default = field.get("default")
    if default is None:
        return "none"
    return "its own" if isinstance(default, dict) else f"`{json.dumps(default)}`"


PAGES = {HERE / "command.md": render_command, HERE / "recipe.md": render_recipe}

if __name__ == "__main__":
    for page, render in PAGES.items():
        page.write_text(render(), encoding="utf-8")
