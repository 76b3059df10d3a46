"""`recaster export` and `recaster publish`: models out of the registry."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

_Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]


def export(
    model: Annotated[
        str, typer.Argument(help="a model's name, models:/NAME/VERSION, or a folder", metavar="MODEL")
    ],
    *,
    to: Annotated[Path, typer.Option(help="the new folder")],
    form: Annotated[
        Literal["hf", "onnx", "word2vec", "word2vec-binary"],
        typer.Option(
            "--format", help="for transformers, for ONNX Runtime, or word vectors for gensim and others"
        ),
    ] = "hf",
    quantize: Annotated[Literal["int8"] | None, typer.Option(help="round to int8 (onnx)")] = None,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="only what LoRA trained, for peft (hf)")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="of an adapter's folder: its base, as a MODEL reference")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Write a model in a form that is read without Recaster; ONNX is checked against torch."""
    from recaster.core.settings import find_settings
    from recaster.pipeline.export_verbs import export_model
    from tasks.show_progress import TerminalReporter

    value = export_model(
        find_settings(Path.cwd()),
        model,
        to,
        form=form,
        int8=quantize == "int8",
        adapter_only=adapter_only,
        base=base,
        reporter=TerminalReporter(),
    )
    sys.stdout.write((json.dumps(value) if as_json else _show_export(value)) + "\n")


def publish(
    model: Annotated[str, typer.Argument(help="a model's name, or models:/NAME/VERSION", metavar="MODEL")],
    *,
    to: Annotated[str, typer.Option(help="hf:org/name or path:DIR")],
    push: Annotated[
        bool, typer.Option("--push", help="put it on the hub; without it nothing leaves")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Write a folder that is ready for a model hub; push it only when told."""
    from recaster.core.settings import find_settings
    from recaster.pipeline.export_verbs import publish_model
    from tasks.show_progress import TerminalReporter

    value = publish_model(find_settings(Path.cwd()), model, to, push=push, reporter=TerminalReporter())
    sys.stdout.write((json.dumps(value) if as_json else _show_published(value, to)) + "\n")


def _show_published(value: dict[str, Any], to: str) -> str:
    lines = [f"  version {value['version']} of {value['source']} is ready in {value['folder']}"]
    if value["pushed"]:
        lines.append(f"  pushed: {value['pushed']}")
    elif to.startswith("hf:"):
        lines.append("  nothing was sent: read its README.md, then run the same command with --push")
    return "\n".join(lines)


def _show_export(value: dict[str, Any]) -> str:
    lines = [f"  {name:<28}{size / 2**20:>9.2f} MiB" for name, size in value["files"].items()]
    rows = "rows of the validation split" if value.get("real_rows") else "made-up rows"
    for name, told in value.get("difference", {}).items():
        largest = ", ".join(f"{output} by {apart:.1e}" for output, apart in told["largest"].items())
        labels = (
            f"; a probability by {told['mean']:.1e} on average, {told['agreement']:.2%} have the same label"
            if told["agreement"] is not None
            else ""
        )
        lines.append(
            f"  {name:<10}{value['bytes'][name] / 2**20:.2f} MiB; against torch on {told['rows']} {rows}, "
            f"at most: {largest}{labels}"
        )
    return "\n".join([f"  written to {value['folder']}", *lines])
