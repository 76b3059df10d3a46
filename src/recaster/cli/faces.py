"""`recaster faces`: a gallery of enrolled people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(name="faces", help="Enrol, find and remove people in a gallery.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]
_Model = Annotated[str, typer.Argument(help="the model's name", metavar="NAME")]
_Gallery = Annotated[Path, typer.Argument(help="the gallery's folder", metavar="GALLERY")]
_Person = Annotated[str, typer.Argument(help="as the gallery shall know them", metavar="PERSON")]
_Source = Annotated[Path, typer.Argument(help="a picture, or a file or folder as data.source has it")]


def _emit(value: dict[str, Any], *, as_json: bool, text: str) -> None:
    sys.stdout.write((json.dumps(value) if as_json else text) + "\n")


@app.command("enrol")
def enrol(
    name: _Model, gallery: _Gallery, person: _Person, source: _Source, *, as_json: _Json = False
) -> None:
    """Add pictures of one person who agreed to it."""
    from recaster.core.settings import find_settings
    from recaster.pipeline.face_verbs import enrol_person

    value = enrol_person(find_settings(Path.cwd()), name, gallery, person, source)
    _emit(
        value, as_json=as_json, text=f"{value['enrolled']} faces of {person}; {value['faces']} in {gallery}"
    )


@app.command("search")
def search(
    name: _Model,
    gallery: _Gallery,
    source: _Source,
    *,
    people: Annotated[int, typer.Option(help="how many are told, the nearest first", min=1)] = 5,
    approximate: Annotated[bool, typer.Option("--approximate", help="by the gallery's index")] = False,
    as_json: _Json = False,
) -> None:
    """Say who of the gallery is on each picture; nobody where no score is above the threshold."""
    from recaster.core.settings import find_settings
    from recaster.pipeline.face_verbs import search_gallery

    settings = find_settings(Path.cwd())
    rows = search_gallery(settings, name, gallery, source, people, approximate=approximate)
    _emit({"found": rows}, as_json=as_json, text="\n".join(_show(row) for row in rows))


def _show(row: dict[str, Any]) -> str:
    matches = row["matches"]
    named = matches[0]["person"] if matches and matches[0]["accepted"] else "(nobody)"
    return "\t".join([row["id"], named, *(f"{one['person']} {one['score']:.4f}" for one in matches)])


@app.command("remove")
def remove(gallery: _Gallery, person: _Person, as_json: _Json = False) -> None:
    """Delete every trace of a person; print a nonce with which `check` proves it later."""
    from recaster.serving.gallery import remove as remove_person

    value = remove_person(gallery, person)
    proof = f"--person {person!r} --nonce {value['nonce']}"
    text = f"{value['faces']} faces removed at {value['at']}; proof: {proof}"
    _emit(value, as_json=as_json, text=text)


@app.command("index")
def index(gallery: _Gallery, as_json: _Json = False) -> None:
    """Build the index for approximate search; needs faiss."""
    from recaster.serving.gallery import build_index

    path = build_index(gallery)
    _emit({"index": str(path)}, as_json=as_json, text=str(path))


@app.command("check")
def check(
    gallery: _Gallery,
    *,
    person: Annotated[str | None, typer.Option(help="say whether they are enrolled, or were removed")] = None,
    nonce: Annotated[str | None, typer.Option(help="that the removal gave out")] = None,
    as_json: _Json = False,
) -> None:
    """Hold every file against the manifest; prove a removal."""
    from recaster.serving.gallery import check as check_gallery

    value = check_gallery(gallery, person=person, nonce=nonce)
    _emit(value, as_json=as_json, text="\n".join(f"{key:<10}{told}" for key, told in value.items()))
