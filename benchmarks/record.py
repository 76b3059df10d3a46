"""How a benchmark's result is kept: JSON with the hardware, the versions and the targets."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def describe_hardware() -> str:
    """The processor's name and how many of its cores there are."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def target(name: str, wanted: str, measured: float | None, *, met: bool) -> dict[str, Any]:
    """One figure that was asked for, beside the one that was measured; None where it was not."""
    return {"name": name, "wanted": wanted, "measured": measured, "met": met}


def write_result(
    name: str,
    question: str,
    rows: list[dict[str, Any]],
    targets: list[dict[str, Any]],
    packages: list[str],
    *,
    command: str | None = None,
) -> Path:
    """Write `results/NAME.json`, and print the targets as a table.

    Args:
        command: what makes it, where that is not `make bench-NAME`.
    """
    result = {
        "question": question,
        "command": command or f"make bench-{name}",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": describe_hardware(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "rows": rows,
        "targets": targets,
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(render_targets(result))
    return path


def render_targets(result: dict[str, Any]) -> str:
    """The targets as the Markdown table that the docs show."""
    lines = ["| figure | wanted | measured | met |", "|---|---|---:|---|"]
    lines += [
        f"| {row['name']} | {row['wanted']} | {_word(row['measured'])} | {'yes' if row['met'] else 'no'} |"
        for row in result["targets"]
    ]
    return "\n".join(lines) + "\n"


def render_rows(result: dict[str, Any], columns: list[str]) -> str:
    """Those rows that have all `columns`, as the Markdown table that the docs show."""
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in columns)} |", "|---" * len(columns) + "|"]
    for row in result["rows"]:
        if all(name in row for name in columns):
            cells = [_word(row[name]) for name in columns]
            lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _word(value: object) -> object:
    return {"True": "yes", "False": "no", "None": "not measured"}.get(str(value), value)
