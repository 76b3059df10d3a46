"""The tables of `recaster check`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

_MIB, _GIB = 2**20, 2**30
_WIDTH = 100
_BUSY = 0.8
"""Of a core that a thread gets; less means that other work, or waiting, took the rest."""


def show_check(value: dict[str, Any]) -> str:
    """The contract's report, then what the splits share, then what the training will need."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"What {value['recipe']} will need", title_justify="left", box=None, pad_edge=False)
    for name, side in (("what", "left"), ("needed", "right"), ("here", "left")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for row in [*_data_rows(value), *_forecast_rows(value["forecast"])]:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=_WIDTH, no_color=True, highlight=False).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    return Path(value["report"]).read_text() + "\n" + "\n".join(lines)


def _data_rows(value: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    if head := value.get("base_labels"):
        told = ", ".join(head["labels"][:8]) or f"{head['classes']} classes"
        fit = "the recipe's" if head["fit"] else "not the recipe's: its head begins with fresh weights"
        rows.append(("labels of the base", told, fit))
    for found in value["leakage"]:
        first, second = found["splits"]
        examples = "".join(f"; {one} = {other}" for one, other in found["examples"])
        told = f"and {found['near']} near copies of {found['looked_at']} looked at{examples}"
        rows.append((f"{second} records also in {first}", str(found["exact"]), told))
    if cut := value.get("truncated"):
        told = ", ".join(f"{split} {share:.1%}" for split, share in sorted(cut.items(), reverse=True))
        rows.append(("texts that are cut", told, "longer than the recipe's max_tokens"))
    return rows


def _forecast_rows(forecast: dict[str, Any]) -> list[tuple[str, str, str]]:
    total, trained = forecast["parameters"], forecast["trained_parameters"]
    rows = [("parameters", f"{total:,}", f"{trained:,} trained ({trained / total:.1%})")]
    if forecast["emulated_precision"]:
        rows.append(("precision", "bf16", "this processor has none: float32 takes a fraction of the time"))
    if not forecast["memory"]:
        rows.append(("memory, time, energy", "not known", "no step ended in the time that a check may take"))
    else:
        rows += [*_memory_rows(forecast), *_time_rows(forecast)]
    disk = forecast["disk"]
    parts = (
        f"{disk['checkpoints']} checkpoints of {_bytes(disk['checkpoint'])}, the model {disk['copies']} times"
    )
    rows.append(("disk", _bytes(disk["needed"]), f"{_bytes(disk['free'])} free; {parts}"))
    return rows


def _memory_rows(forecast: dict[str, Any]) -> list[tuple[str, str, str]]:
    memory, size = forecast["memory"], forecast["micro_batch_size"]
    limits = "; ".join(f"{_bytes(limit['bytes'])} {limit['source']}" for limit in forecast["memory_limits"])
    rows = [("peak memory of a rank", _bytes(memory["resident"]), limits)]
    if memory["device"]:
        rows.append(("peak memory of a GPU", _bytes(memory["device"]), ""))
    fits = "fits" if size["fits"] == size["asked"] else f"{size['fits'] or 'none'} fits"
    return [*rows, ("rows of a pass", str(size["asked"]), fits)]


def _time_rows(forecast: dict[str, Any]) -> list[tuple[str, str, str]]:
    time, energy = forecast["time"], forecast["energy"]
    before = f"features {_duration(time['features'])}, " if time["features"] else ""
    parts = (
        f"{before}{time['steps']} steps of {time['step']:.3g} s, {time['validations']} validations of "
        f"{time['validation']:.3g} s, {time['saves']} saves"
    )
    rows = [("wall time of training", _duration(time["total"]), parts)]
    if forecast["device"] == "cpu" and (forecast["cpu_share"] or 1.0) < _BUSY:
        told = f"a thread got {forecast['cpu_share']:.0%} of a core: quicker where nothing runs beside it"
        rows.append(("", "", told))
    if energy:
        rows.append(
            ("energy", f"{energy['watt_hours']:.3g} Wh", f"{energy['watts']:.3g} W, {energy['source']}")
        )
    else:
        rows.append(("energy", "not known", "this GPU's meter is not readable; set RECASTER_WATTS"))
    return rows


def _bytes(value: float) -> str:
    return f"{value / _GIB:.2f} GiB" if value >= _GIB else f"{value / _MIB:.1f} MiB"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{seconds:.1f} s"
