"""`recaster trees`: sentences in CoNLL-U, drawn and scored."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(name="trees", help="Draw and score sentences in CoNLL-U.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]
_File = Annotated[Path, typer.Argument(help="CoNLL-U, or - for standard input", metavar="FILE")]


def _emit(value: dict[str, Any], *, as_json: bool, text: str) -> None:
    sys.stdout.write((json.dumps(value) if as_json else text) + "\n")


@app.command("draw")
def draw(
    file: _File,
    svg: Annotated[Path | None, typer.Option(help="a new folder for a picture of each sentence")] = None,
    most: Annotated[int, typer.Option(help="sentences, from the first on", min=1)] = 20,
    as_json: _Json = False,
) -> None:
    """Draw trees in the terminal, or as SVG pictures."""
    from recaster.pipeline.tree_verbs import draw_trees

    value = draw_trees(_read(file), svg=svg, most=most)
    _emit(value, as_json=as_json, text="\n".join(one["drawing"] for one in value["trees"]))


@app.command("score")
def score(
    gold: Annotated[Path, typer.Argument(help="CoNLL-U as people made it", metavar="GOLD")],
    system: Annotated[Path, typer.Argument(help="CoNLL-U of a parser, or -", metavar="SYSTEM")],
    as_json: _Json = False,
) -> None:
    """Score a parse of the same text by the rules of the CoNLL 2018 shared task."""
    from recaster.pipeline.tree_verbs import score_files

    scores = score_files(_read(gold), _read(system))
    lines = [f"  {'':<12}{'precision':>10}{'recall':>10}{'F1':>10}"]
    lines += [
        f"  {name:<12}{one['precision']:>10.4f}{one['recall']:>10.4f}{one['f1']:>10.4f}"
        for name, one in scores.items()
    ]
    _emit({"scores": scores}, as_json=as_json, text="\n".join(lines))


def _read(file: Path) -> tuple[str, bytes]:
    """A name for messages, and what is there."""
    if str(file) == "-":
        return "standard input", sys.stdin.buffer.read()
    return str(file), file.read_bytes()
