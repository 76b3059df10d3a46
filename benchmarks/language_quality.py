"""How good are the language workloads on public data? One module a task, each with `run` and `targets`.

RECASTER_TEST_DATA=DIR python -m benchmarks.language_quality [--only translation] [--work DIR]
"""

from __future__ import annotations

import argparse
import importlib
import json
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
_PACKAGES = ["torch", "numpy", "tokenizers", "transformers", "sacrebleu"]


def main() -> None:
    """Run the tasks; rows of those left out stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--work", type=Path, default=Path("/tmp/recaster-language"))
    asked = parser.parse_args()
    write({task: _module(task).run(asked.work) for task in asked.only})


def write(measured: dict[str, list[dict[str, Any]]]) -> Path:
    """Write the rows of these tasks beside those that are kept of the others."""
    path = RESULTS / "language_quality.json"
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
    return write_result("language_quality", "How good are the language workloads?", rows, targets, _PACKAGES)


def _module(task: str) -> Any:
    return importlib.import_module(f"benchmarks.language_{task}")


if __name__ == "__main__":
    main()
