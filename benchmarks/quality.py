"""Quality of workloads on public data: one module a task, found by its name, each with `run` and `targets`.

run(work)        rows of one task, from a project below the folder `work`; finished steps are found again
targets(rows)    the figures that were asked for, from its rows
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, write_result


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The tasks `benchmarks/PREFIX_NAME.py` and their result file."""

    name: str
    """Of the file below `benchmarks/results/`, without its suffix."""
    prefix: str
    question: str
    command: str
    """That makes the file."""
    packages: Sequence[str]

    @cached_property
    def tasks(self) -> list[str]:
        """All that are there, but for the suite's own module."""
        found = {path.stem for path in Path(__file__).parent.glob(f"{self.prefix}_*.py")} - {self.name}
        return sorted(stem.removeprefix(f"{self.prefix}_") for stem in found)

    def main(self, description: str | None) -> int:
        """Run the tasks that are asked for; without data say so, and return 1."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--only", nargs="+", choices=self.tasks, default=self.tasks)
        parser.add_argument("--work", type=Path, default=Path(f"/tmp/recaster-{self.prefix}"))
        asked = parser.parse_args()
        if "RECASTER_TEST_DATA" not in os.environ:
            sys.stderr.write("SKIPPED: RECASTER_TEST_DATA names no folder of public data sets\n")
            return 1
        for task in asked.only:  # each is kept as soon as it is there: some take hours
            self.write(task, self._module(task).run(asked.work))
        return 0

    def write(self, task: str, measured: Sequence[dict[str, Any]]) -> Path:
        """Write the rows of a task beside those that are kept of the others."""
        path = RESULTS / f"{self.name}.json"
        kept = json.loads(path.read_bytes())["rows"] if path.exists() else []
        rows = [row for row in kept if row["task"] != task] + [{"task": task, **row} for row in measured]
        rows.sort(key=lambda row: self.tasks.index(row["task"]))
        present = {row["task"] for row in rows}
        targets = [
            entry
            for name in self.tasks
            if name in present
            for entry in self._module(name).targets([row for row in rows if row["task"] == name])
        ]
        return write_result(
            self.name, self.question, rows, targets, list(self.packages), command=self.command
        )

    def _module(self, task: str) -> Any:
        return importlib.import_module(f"benchmarks.{self.prefix}_{task}")


def headline(metric: str, entry: dict[str, float]) -> dict[str, Any]:
    """The figure that a row is known by, for a table over all tasks."""
    return {"metric": metric, **{name: round(entry[name], 4) for name in ("value", "low", "high")}}
