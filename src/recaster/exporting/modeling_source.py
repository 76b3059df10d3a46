"""One file that builds a model with torch alone, out of a network's module and the ones it shares.

A network's module may import names from its siblings in `recaster.models`; in the exported `modeling.py`
such an import is replaced by what the sibling holds, once, in the order of use.
"""

from __future__ import annotations

import ast
from pathlib import Path

_SIBLINGS = "recaster.models."


def compose_source(module: Path) -> str:
    """The text of `module` with its siblings' in place of their imports.

    Raises:
        ValueError: two of the modules define the same name, so that one would hide the other's.
    """
    text, seen = module.read_text(encoding="utf-8"), {module.stem}
    composed = _inline(text, module.parent, seen)
    defined: set[str] = set()
    for name in (name for node in ast.parse(composed).body for name in _defines(node)):
        if name in defined:
            raise ValueError(f"{module.name} and what it imports define {name} twice")
        defined.add(name)
    return composed


def _inline(text: str, folder: Path, seen: set[str]) -> str:
    lines, kept, passed = text.splitlines(), [], 0
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(_SIBLINGS):
            continue
        kept += lines[passed : node.lineno - 1]
        passed = node.end_lineno or node.lineno
        sibling = str(node.module).removeprefix(_SIBLINGS)
        if sibling not in seen:
            seen.add(sibling)
            kept += _inline(_read_body(folder / f"{sibling}.py"), folder, seen).splitlines()
    return "\n".join([*kept, *lines[passed:]]) + "\n"


def _read_body(path: Path) -> str:
    """The text of a module without its docstring and its `__future__` imports."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for number, node in reversed(list(enumerate(ast.parse(text).body))):
        docstring = number == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines)


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    names: list[str] = []
    for target in targets:
        names += [part.id for part in ast.walk(target) if isinstance(part, ast.Name)]
    return names
