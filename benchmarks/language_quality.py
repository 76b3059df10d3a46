"""How good are the language workloads on public data? One module a task, each with `run` and `targets`.

RECASTER_TEST_DATA=DIR python -m benchmarks.language_quality [--only parsing] [--work DIR]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, write_result

TASKS = tuple(
    sorted(
        path.stem.removeprefix("language_")
        for path in Path(__file__).parent.glob("language_*.py")
        if path.stem != "language_quality"
    )
)
"""Found by looking: `benchmarks/language_NAME.py` is the task NAME."""
_NAME = "language_quality"
_PACKAGES = ["torch", "numpy", "tokenizers"]


def main() -> int:
    """Run the tasks; rows of those left out stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--work", type=Path, default=Path("/tmp/recaster-language"))
    asked = parser.parse_args()
    if "RECASTER_TEST_DATA" not in os.environ:
        print("SKIPPED: RECASTER_TEST_DATA names no folder of public data sets; nothing was measured")
        return 1
    for task in asked.only:  # each is kept as soon as it is there: they take hours
        write({task: _module(task).run(asked.work)})
    return 0


def write(measured: dict[str, list[dict[str, Any]]]) -> Path:
    """Write the rows of these tasks beside those that are kept of the others."""
    path = RESULTS / f"{_NAME}.json"
    kept = json.loads(path.read_bytes()) if path.exists() else {"rows": []}
    rows = [row for row in kept["rows"] if row["task"] not in measured]
    for task, found in measured.items():
        rows += [{"task": task, **row} for row in found]
    present = {row["task"] for row in rows}
    targets = [
        entry
        for task in TASKS
        if task in present
        for entry in _module(task).targets([row for row in rows if row["task"] == task])
    ]
    command = "make bench-language-quality"
    return write_result(
        _NAME, "How good are the language workloads?", rows, targets, _PACKAGES, command=command
    )


def _module(task: str) -> Any:
    return importlib.import_module(f"benchmarks.language_{task}")


if __name__ == "__main__":
    sys.exit(main())
