"""Models out: the forms in which an artifact leaves the registry, and a folder that is ready for a hub."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recaster.bases.reference import parse_reference
from recaster.core.errors import RecipeError, ServiceError
from recaster.core.files import commit_directory, read_json, storage_errors
from recaster.core.progress import Reporter
from recaster.core.settings import Settings
from recaster.core.steps import MANIFEST

_WORD_FORMS = ("word2vec", "word2vec-binary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is exported."""

    folder: Path
    name: str
    """Of the registered model; empty for a folder."""
    version: str


def find_source(settings: Settings, text: str, reporter: Reporter) -> Source:
    """The artifact that `text` names: a folder, a registered model's name (its champion), or models:/NAME/3.

    Raises:
        RecipeError: there is no such folder, model or version.
        ServiceError: MLflow does not answer.
    """
    from recaster.pipeline.pinned_base import pin

    if (folder := Path(text)).is_dir():
        if not (folder / "preprocessing.json").exists():
            raise RecipeError(
                "This folder is no exported model of Recaster.",
                where=text,
                value="it has no preprocessing.json",
                repair="name a registered model, or a folder that `recaster export` wrote",
            )
        return Source(folder=folder, name="", version="")
    named = text if text.startswith("models:") else f"models:/{text}@champion"
    found = pin(settings, parse_reference(named), say=reporter.say)
    assert found.folder is not None  # noqa: S101 - `pin` brings a registered model's files
    return Source(folder=found.folder, name=found.name, version=found.revision)


def export_model(
    settings: Settings,
    text: str,
    to: Path,
    *,
    form: str,
    int8: bool,
    adapter_only: bool,
    base: str | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write the model that `text` names into the new folder `to`, in a form that others read.

    An adapter's folder is merged into its base first.

    Args:
        form: `hf`, a folder for transformers (for a network of Recaster's own: its weights, configuration
            and source), `onnx`, or of word vectors `word2vec` (text) and `word2vec-binary`.
        int8: rounded; of onnx.
        adapter_only: only what was trained beside the base; of hf.
        base: MODEL reference of an adapter's base, where it is not the one that the adapter names.

    Returns:
        What was written: folder, files with bytes, and for onnx how far its answers are from torch's.

    Raises:
        RecipeError: the form does not fit the model, or `to` is not empty.
        ExportError: the form would answer otherwise than the model.
    """
    from recaster.exporting.adapter_form import is_adapter

    _check_choices(form, int8=int8, adapter_only=adapter_only)
    if form == "onnx":
        from recaster.exporting.onnx import check_onnx_is_there

        check_onnx_is_there()
    source = find_source(settings, text, reporter)
    facts: dict[str, Any] = {"source": text, "version": source.version, "form": form, "int8": int8}

    def fill(work: Path) -> None:
        artifact = source.folder
        if is_adapter(artifact) and not adapter_only:
            artifact = work / ".merged"
            _merge(settings, source.folder, artifact, base=base, reporter=reporter)
        if adapter_only:
            _copy_adapter(source.folder, work)
        elif form == "hf":
            _copy(artifact, work)
        elif form in _WORD_FORMS:
            _write_words(source, artifact, work, form)
        else:
            facts.update(_write_onnx(settings, source, artifact, work, int8=int8, reporter=reporter))
        shutil.rmtree(work / ".merged", ignore_errors=True)

    write_new_folder(to, fill)
    files = {path.relative_to(to).as_posix(): path.stat().st_size for path in _files(to)}
    return {**facts, "folder": str(to), "files": files}


def publish_model(
    settings: Settings, name: str, to: str, *, push: bool, reporter: Reporter
) -> dict[str, Any]:
    """Write a folder that is ready for a hub; put it there only when told.

    Args:
        name: of a registered model (its champion), or `models:/NAME/VERSION`.
        to: `path:DIR`, a new folder; or `hf:org/name`, whose folder is kept under RECASTER_HOME.
        push: of hf: put the folder into the hub's repository.

    Raises:
        RecipeError: `to` is malformed, or the hub refuses.
        ExportError: the model's folder is not ready for a hub.
        ServiceError: the hub does not answer; the folder is written.
    """
    from recaster.exporting.hub import check_hub_ready, push_folder

    kind, _, place = to.partition(":")
    repository = re.fullmatch(r"[\w.-]+/[\w.-]+", place) if kind == "hf" else None
    if not (repository or (kind == "path" and place.strip())) or (push and kind != "hf"):
        raise RecipeError(
            "A folder is not pushed." if push and kind == "path" else "This names no place to publish to.",
            where="--push" if push and kind == "path" else "--to",
            value=to,
            repair="write --to hf:org/name, or --to path:DIR without --push",
        )
    source = find_source(settings, name, reporter)
    check_hub_ready(source.folder)
    if kind == "path":
        folder = Path(place)
        write_new_folder(folder, lambda work: _copy(source.folder, work))
    else:
        folder = settings.home / "published" / place.replace("/", "--")
        shutil.rmtree(folder, ignore_errors=True)  # of a former version
        write_new_folder(folder, lambda work: _copy(source.folder, work))
    facts = {"source": name, "version": source.version, "folder": str(folder), "pushed": None}
    if not push:
        return facts
    if settings.offline:
        raise ServiceError(
            "Offline is switched on: nothing was pushed.",
            where="RECASTER_OFFLINE",
            value=str(folder),
            repair="unset it; the folder is written",
        )
    reporter.say(f"pushing {folder} to {to}")
    message = f"{source.name or Path(name).name} version {source.version or 'unknown'}"
    return {**facts, "pushed": push_folder(folder, place, message=message)}


def write_new_folder(to: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder that is whole or not there.

    Raises:
        RecipeError: it holds something already.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise RecipeError(
            "The target is there already, and is not overwritten.",
            where="--to",
            value=str(to),
            repair="remove it, or name another folder",
        )
    work = to.with_name(f".{to.name}.work")
    with storage_errors(to):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            fill(work)
            if to.exists():
                to.rmdir()
            commit_directory(work, to)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _check_choices(form: str, *, int8: bool, adapter_only: bool) -> None:
    if int8 and form != "onnx":
        raise RecipeError(
            "int8 is a form of ONNX.",
            where="--quantize",
            value=f"int8 with --format {form}",
            repair="add --format onnx",
        )
    if adapter_only and form != "hf":
        raise RecipeError(
            "An adapter by itself is no graph.",
            where="--adapter-only",
            value=f"--format {form}",
            repair="use --format hf, or leave --adapter-only out: the merged model is exported",
        )


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _copy(artifact: Path, work: Path) -> None:
    shutil.copytree(
        artifact, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, ".merged", "adapter")
    )


def _write_words(source: Source, artifact: Path, work: Path, form: str) -> None:
    if not (artifact / "vocabulary.json").exists():
        raise RecipeError(
            "This model is no table of word vectors.",
            where="--format",
            value=f"{form} for {source.name or artifact}",
            repair="use --format hf or onnx, or name a model of the workload word-embedding",
        )
    from recaster.data.vector_files import write_binary, write_text
    from recaster.models.word_vectors import open_lexicon

    lexicon = open_lexicon(artifact)
    name, write = {"word2vec": ("vectors.txt", write_text)}.get(form, ("vectors.w2v", write_binary))
    write(work / name, lexicon.words, lexicon.table.vectors.weight.detach().numpy())
    _copy_small(artifact, work)


def _copy_adapter(artifact: Path, work: Path) -> None:
    from recaster.exporting.adapter_form import ADAPTER, is_adapter

    found = artifact if is_adapter(artifact) else artifact / ADAPTER
    if not is_adapter(found):
        raise RecipeError(
            "This model has no adapter form.",
            where="--adapter-only",
            value=str(artifact),
            repair="it is there for customize.method lora (but variant pissa, which changes the base) on a "
            "model of transformers; leave --adapter-only out",
        )
    shutil.copytree(found, work, dirs_exist_ok=True)
    if found != artifact:
        _copy_small(artifact, work)


def _copy_small(artifact: Path, work: Path) -> None:
    """Card, licences, tokenizer and processor: what is neither weights nor says of what form these are."""
    from recaster.exporting.adapter_form import ADAPTED_BASE

    left_out = {MANIFEST, "config.json", "modeling.py", ADAPTED_BASE, "adapter_config.json"}
    for path in artifact.iterdir():
        keep = path.is_file() and path.suffix != ".safetensors" and path.name not in left_out
        if keep and not (work / path.name).exists():
            shutil.copyfile(path, work / path.name)


def _merge(settings: Settings, adapter: Path, merged: Path, *, base: str | None, reporter: Reporter) -> None:
    from recaster.exporting.adapter_form import ADAPTED_BASE, merge_adapter_form
    from recaster.exporting.open_folder import write_open_folder
    from recaster.pipeline.fetched_bases import fetch_base

    about = read_json(adapter / ADAPTED_BASE)
    named = base or about["reference"]
    fetched = fetch_base(settings, named, licence=about["licence"], reporter=reporter)
    merged.mkdir()
    write_open_folder(merged, network=merge_adapter_form(adapter, fetched.path), tokenizer=fetched.path)
    _copy_small(adapter, merged)


def _write_onnx(
    settings: Settings, source: Source, artifact: Path, work: Path, *, int8: bool, reporter: Reporter
) -> dict[str, Any]:
    from recaster.exporting.graphs import read_graph
    from recaster.exporting.onnx import FLOAT, INT8, check_rounding, write_int8, write_onnx

    graph = read_graph(artifact, find_prepared(settings, source))
    if int8:
        check_rounding(graph)
    reporter.say("exporting the graph, and comparing it with torch")
    difference = {"float32": write_onnx(graph, work / FLOAT)}
    sizes = {"float32": (work / FLOAT).stat().st_size}
    if int8:
        difference["int8"] = write_int8(graph, work / FLOAT, work / INT8)
        sizes["int8"] = (work / INT8).stat().st_size
        (work / FLOAT).unlink()
    shutil.copyfile(artifact / "config.json", work / "config.json")
    _copy_small(artifact, work)
    return {
        "difference": {name: asdict(one) for name, one in difference.items()},
        "bytes": sizes,
        "real_rows": graph.real,
    }


def find_prepared(settings: Settings, source: Source) -> Path | None:
    """The prepared data that a registered version was trained on, where its cast was run on this machine."""
    for path in (settings.steps / "register").glob(f"*/{MANIFEST}"):
        manifest = read_json(path)
        if (manifest["facts"]["name"], manifest["facts"]["version"]) != (source.name, source.version):
            continue
        for trained in (settings.steps / "train").glob(f"*/{MANIFEST}"):
            if read_json(trained)["facts"].get("run_id") == manifest["inputs"]["run_id"]:
                told = Path(read_json(trained.with_name("plan.json"))["prepared"])
                found = settings.steps.joinpath(*told.parts[-2:])
                return found if found.is_dir() else None
    return None
