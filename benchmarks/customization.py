"""What does each way of customizing an open model train, cost and reach?

Each run is a recipe of `recipes/` with overrides, cast up to its evaluation on the published test
split. A run's row keeps its date, so that some can be measured again alone:

    RECASTER_TEST_DATA=FOLDER make bench-customization                  all that is not there yet
    RECASTER_TEST_DATA=FOLDER python -m benchmarks.customization --only sst2/lora

Seconds are of the whole training, divided by its epochs: steps, validations and checkpoints; CPU seconds
are of the rank's process. Latency is the median over sentences of the test split, one at a time on one
thread, the two models in turn in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import customization_pictures, customization_runs, customization_smaller
from benchmarks.customization_targets import list_targets
from benchmarks.public_data import make_project
from benchmarks.record import RESULTS, write_result

ROOT = Path(__file__).parent.parent
RUNS = customization_runs.RUNS | customization_smaller.RUNS | customization_pictures.RUNS
PACKAGES = ["torch", "transformers", "peft"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=[])
    parser.add_argument("--work", type=Path, default=ROOT / ".recaster" / "customization", help="kept casts")
    arguments = parser.parse_args()
    if "RECASTER_TEST_DATA" not in os.environ:
        raise SystemExit("RECASTER_TEST_DATA must name the folder of the public data sets")
    rows = _read_rows()
    wanted = arguments.only or [name for name in RUNS if name not in rows]
    project = make_project(arguments.work)
    for name in wanted:
        rows[name] = {"run": name, **RUNS[name](project), "date": datetime.now(UTC).date().isoformat()}
        sys.stderr.write(f"{json.dumps(rows[name])}\n")
        ordered = [rows[one] for one in RUNS if one in rows]
        write_result(
            "customization",
            "What does each way of customizing an open model train, cost and reach?",
            ordered,
            list_targets(rows),
            PACKAGES,
        )


def _read_rows() -> dict[str, dict[str, Any]]:
    path = RESULTS / "customization.json"
    return {row["run"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


if __name__ == "__main__":
    main()
