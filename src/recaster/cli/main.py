"""The `recaster` command: a thin face of the library.

Exit codes: 0 done; 1 failed; 2 wrong usage or recipe; 3 data refused; 4 the gate said no;
5 a service did not answer.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recaster.cli import export, faces, models, trees

if TYPE_CHECKING:
    from recaster.core.settings import Settings
    from recaster.pipeline import Cast

app = typer.Typer(
    name="recaster",
    help="Keep open models fresh on your own data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(models.app)
app.add_typer(faces.app)
app.add_typer(trees.app)
app.command()(export.export)
app.command()(export.publish)
RecipePath = Annotated[Path, typer.Argument(help="the recipe, a YAML file", metavar="RECIPE")]
Set = Annotated[list[str] | None, typer.Option("--set", help="override one value, as section.key=value")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="fail when another cast holds the model")]
ModelName = Annotated[str, typer.Argument(help="the model's name", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output")]
_WAIT_SECONDS = 24 * 3600.0
_INTERRUPTED = 130
_STOPPED = "Stopped. The same command goes on from here."


def main() -> int:
    """Run the command; map every error to its exit code and a message with a repair."""
    from recaster.core.collection import collect_rarely
    from recaster.core.errors import RecasterError
    from recaster.core.settings import quiet_dependencies

    quiet_dependencies()
    collect_rarely()
    try:
        code = app(standalone_mode=False)
    except RecasterError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(_STOPPED, _INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last door: nothing may end in a bare traceback
        if hasattr(error, "format_message"):
            return _fail(f"{error.format_message()}\n  repair: recaster --help", 2)
        return _fail(f"Unexpected {type(error).__name__}: {error}\n  where:  {_keep_traceback()}", 1)
    if code == _INTERRUPTED:  # typer's own answer to Ctrl-C
        return _fail(_STOPPED, _INTERRUPTED)
    return int(code or 0)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"recaster: {message}\n")
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": message, "exit_code": code}) + "\n")
    return code


def _keep_traceback() -> str:
    from recaster.core.settings import find_settings

    text = traceback.format_exc()
    log = find_settings(Path.cwd()).home / "logs" / "last-error.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text)
    except OSError:
        return text
    return str(log)


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _emit(value: dict[str, Any], *, as_json: bool, text: str) -> None:
    sys.stdout.write((json.dumps(value) if as_json else text) + "\n")


def _open(path: Path, overrides: list[str] | None) -> Cast:
    from recaster import pipeline

    return pipeline.open_cast(path, overrides or [])


def _settings() -> Settings:
    from recaster.core.settings import find_settings

    return find_settings(Path.cwd())


@app.command()
def new(
    name: ModelName,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="RECIPE", help="Copy this one, not that of the digits.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a recipe to start from, which DVC versions; in an empty folder, also the project around it."""
    from recaster import pipeline

    path = pipeline.new_recipe(_settings(), name, source)
    _emit(
        {"recipe": str(path)},
        as_json=as_json,
        text=f"{path}: edit it, then `recaster check {path}`",
    )


@app.command()
def check(recipe: RecipePath, overrides: Set = None, as_json: Json = False) -> int:
    """Check a recipe and its data, and foresee memory, disk, time and energy, before any training."""
    from recaster import pipeline
    from recaster.cli.show_check import show_check
    from recaster.core.errors import ResourceError
    from tasks.show_progress import TerminalReporter

    value = pipeline.check(_open(recipe, overrides), TerminalReporter())
    _emit(value, as_json=as_json, text=show_check(value))
    for reason in value["forecast"]["refused"]:
        _say(f"recaster: {reason}")
    return ResourceError.exit_code if value["forecast"]["refused"] else 0


@app.command()
def run(
    recipe: RecipePath,
    overrides: Set = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> int:
    """Run a whole cast: from raw data to a champion, or a reason why not."""
    from recaster import pipeline
    from recaster.cli.show import show_summary
    from tasks.show_progress import TerminalReporter

    cast = _open(recipe, overrides)
    if finished := pipeline.find_finished(cast):
        _say("Nothing changed; nothing to do.")
        summary = finished.to_json()
    else:
        from recaster.cli.cast import run_cast

        summary = run_cast(cast, wait_seconds=0.0 if no_wait else _WAIT_SECONDS, reporter=TerminalReporter())
    _emit(summary, as_json=as_json, text=show_summary(summary, recipe))
    return 0 if summary["accepted"] else 4


@app.command()
def search(
    recipe: RecipePath,
    overrides: Set = None,
    no_wait: NoWait = False,
    write: Annotated[bool, typer.Option("--write", help="put the best values into the recipe")] = False,
    as_json: Json = False,
) -> None:
    """Search hyper-parameters as the recipe's section search says."""
    from recaster import pipeline
    from recaster.cli.show import show_search
    from tasks.show_progress import TerminalReporter

    cast = _open(recipe, overrides)
    if finished := pipeline.find_search(cast):
        _say("Nothing changed; nothing to do.")
        summary = finished.to_json()
    else:
        from recaster.cli.cast import run_search

        wait_seconds = 0.0 if no_wait else _WAIT_SECONDS
        summary = run_search(cast, wait_seconds=wait_seconds, reporter=TerminalReporter())
    if write:
        from recaster.recipe.load import write_values

        write_values(recipe, summary["best"]["values"])
    text = show_search(summary, recipe, overrides or [], written=write)
    _emit({**summary, "written": write}, as_json=as_json, text=text)


@app.command()
def train(recipe: RecipePath, overrides: Set = None, as_json: Json = False) -> None:
    """Run the steps up to training, in this process; `run` finds them finished."""
    _run_to("train", recipe, overrides, as_json=as_json)


@app.command()
def evaluate(recipe: RecipePath, overrides: Set = None, as_json: Json = False) -> None:
    """Run the steps up to evaluation, in this process; `run` finds them finished."""
    _run_to("evaluate", recipe, overrides, as_json=as_json)


@app.command(hidden=True)
def step(name: str, recipe: RecipePath, overrides: Set = None, as_json: Json = False) -> None:
    """Run one data step and place its result in the work tree (the entry point of dvc.yaml)."""
    _run_to(name, recipe, overrides, as_json=as_json, place=True)


def _run_to(
    name: str, recipe: Path, overrides: list[str] | None, *, as_json: bool, place: bool = False
) -> None:
    from recaster import pipeline
    from recaster.cli.show import show_step
    from tasks.show_progress import TerminalReporter

    cast = _open(recipe, overrides)
    with pipeline.hold_model(cast, wait_seconds=_WAIT_SECONDS, on_wait=_say):
        result = pipeline.run_to(cast, name, TerminalReporter(), place=place)
    facts = {"step": name, "ref": result.ref, "reused": result.reused, **result.facts}
    _emit(facts, as_json=as_json, text=show_step(facts))


@app.command()
def promote(
    name: ModelName, version: Annotated[str, typer.Option(help="model version")], as_json: Json = False
) -> None:
    """Make a version champion by hand."""
    from recaster import pipeline

    value = pipeline.promote_by_hand(_settings(), name, version)
    _emit(
        value,
        as_json=as_json,
        text=f"{name}: champion is version {version} (was {value['former'] or 'none'})",
    )


@app.command()
def rollback(name: ModelName, as_json: Json = False) -> None:
    """Give production back to the champion before the present one."""
    from recaster import pipeline

    value = pipeline.roll_back_champion(_settings(), name)
    _emit(
        value,
        as_json=as_json,
        text=f"{name}: champion is version {value['restored']} again (was {value['former']})",
    )


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="of this model alone", metavar="NAME")] = None,
    as_json: Json = False,
) -> None:
    """List the casts that did work, oldest first."""
    from recaster import pipeline
    from recaster.cli.show import show_history

    casts = pipeline.history(_settings(), name)
    _emit({"casts": casts}, as_json=as_json, text=show_history(casts))


@app.command()
def status(as_json: Json = False) -> None:
    """Say which services and casts run, and each model's champion."""
    from recaster import pipeline
    from recaster.cli.services import list_services

    settings = _settings()
    value = {"services": list_services(settings), **pipeline.status(settings)}
    _emit(value, as_json=as_json, text=json.dumps(value, indent=1))


@app.command()
def ui(as_json: Json = False) -> None:
    """Start the MLflow and Prefect pages on loopback and say where they are."""
    import webbrowser

    from recaster.cli.services import ensure_mlflow, ensure_prefect

    settings = _settings()
    value = {"mlflow": ensure_mlflow(settings), "prefect": ensure_prefect(settings).removesuffix("/api")}
    if sys.stdout.isatty() and os.environ.get("DISPLAY"):
        for address in value.values():
            webbrowser.open(address)
    _emit(
        value,
        as_json=as_json,
        text=f"MLflow   {value['mlflow']}\nPrefect  {value['prefect']}\nstop both: recaster down",
    )


@app.command()
def up(as_json: Json = False) -> None:
    """Keep a local Prefect server and a worker running."""
    from recaster.cli.services import ensure_prefect, ensure_worker

    settings = _settings()
    api_url = ensure_prefect(settings)
    ensure_worker(settings, api_url)
    text = f"Prefect  {api_url.removesuffix('/api')}, one worker on the pool recaster\nstop: recaster down"
    _emit({"prefect": api_url}, as_json=as_json, text=text)


@app.command()
def down(as_json: Json = False) -> None:
    """Stop the local services that this home started, and nothing else."""
    from recaster.cli.services import stop_services

    stopped = stop_services(_settings())
    _emit(
        {"stopped": stopped}, as_json=as_json, text=f"stopped: {', '.join(stopped) or 'nothing was running'}"
    )


@app.command()
def schedule(recipe: RecipePath, overrides: Set = None, as_json: Json = False) -> None:
    """Repeat this recipe by its cron line, on the local worker."""
    from recaster.cli.cast import schedule_cast

    value = schedule_cast(_open(recipe, overrides))
    _emit(
        value,
        as_json=as_json,
        text=f"{value['deployment']} runs at {value['cron']!r}; `recaster up` keeps its worker",
    )


@app.command()
def predict(
    name: ModelName,
    source: Annotated[
        str | None,
        typer.Argument(help="a file or folder as data.source has it, https://…, or -; a generator has none"),
    ] = None,
    *,
    alias: Annotated[str, typer.Option(help="which version")] = "champion",
    samples: Annotated[int, typer.Option(help="of a generator: how many pictures", min=1)] = 16,
    seed: Annotated[
        int, typer.Option(help="of a generator: the first picture's; the next has one more", min=0)
    ] = 1,
    label: Annotated[str | None, typer.Option(help="of a conditional generator: which pictures")] = None,
    to: Annotated[Path, typer.Option(help="of a generator: the PNG file")] = Path("samples.png"),
    as_json: Json = False,
) -> None:
    """Label records, answer conversations, parse texts, compare faces or make pictures as in production."""
    from recaster import pipeline
    from recaster.cli.show import show_prediction

    if source is None:
        rows = pipeline.sample(_settings(), name, to, count=samples, seed=seed, label=label, alias=alias)
    else:
        given = sys.stdin.buffer.read() if source == "-" else source
        rows = pipeline.predict(_settings(), name, given, alias=alias)
    _emit({"predictions": rows}, as_json=as_json, text="\n".join(show_prediction(row) for row in rows))


@app.command()
def chat(
    name: Annotated[str, typer.Argument(help="the model's name, or an exported folder", metavar="NAME")],
    alias: Annotated[str, typer.Option(help="which version")] = "champion",
    system: Annotated[str | None, typer.Option(help="the system's message, such as a persona")] = None,
    temperature: Annotated[float, typer.Option(help="0: always the likeliest reply", min=0.0)] = 0.0,
    as_json: Json = False,
) -> None:
    """Talk with a chat model; a line from standard input is a message, an empty one ends."""
    from recaster import pipeline
    from recaster.cli.chat import talk

    voice = pipeline.open_voice(_settings(), name, alias=alias)
    messages = talk(voice, system=system, temperature=temperature, aloud=not as_json)
    if as_json:
        _emit({"messages": messages}, as_json=True, text="")
