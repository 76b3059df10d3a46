"""Does every strategy end where one process ends?

Runs each case of the strategies' contract on gloo ranks of this machine and writes the largest
difference of a weight after ten AdamW steps to benchmarks/results/strategies.json.

    python -m benchmarks.strategies
"""

from __future__ import annotations

import json
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tests.contract import strategy_runs
from tests.contract.strategy_runs import CASES, MOVES, STEPS, Case

_RESULT = Path(__file__).parent / "results" / "strategies.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        strategy_runs.run_phases(Path(folder))
        rows = [_measure_case(Path(folder), case) for case in CASES]
        moves = [
            {
                "saved_by": move.origin.name,
                "continued_by": move.to.name,
                "error": strategy_runs.largest_error(
                    Path(folder), move.name, strategy_runs.reference_of(move.to)
                ),
            }
            for move in MOVES
        ]
    result = {
        "question": f"How far is each strategy from one process after {STEPS} AdamW steps?",
        "command": "make contract-table",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": _processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
        "moves": moves,
        "targets": _targets(rows, moves),
    }
    _RESULT.write_text(json.dumps(result, indent=1) + "\n")
    _show(result)


def _measure_case(folder: Path, case: Case) -> dict[str, Any]:
    one = strategy_runs.final_weights(folder, case.name, case.model)
    two = strategy_runs.final_weights(folder, f"{case.name}-again", case.model)
    return {
        "strategy": case.strategy,
        "ranks": case.ranks,
        "mesh": case.mesh,
        "model": case.model,
        "precision": case.precision,
        "micro_batch_size": case.micro,
        "stages_per_rank": case.stages,
        "error": strategy_runs.largest_error(folder, case.name, strategy_runs.reference_of(case)),
        "bitwise_repeatable": all(torch.equal(value, two[name]) for name, value in one.items()),
    }


def _targets(rows: list[dict[str, Any]], moves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def worst(precision: str, *strategies: str) -> float:
        return max(
            float(row["error"])
            for row in rows
            if row["precision"] == precision and (not strategies or row["strategy"] in strategies)
        )

    bounds = [
        ("float32, largest error of any strategy", 4.2e-5, worst("float32")),
        ("float32, largest error of ddp and pipeline", 2e-5, worst("float32", "ddp", "pipeline")),
        ("bf16, largest error of any strategy", 5e-3, worst("bf16")),
        ("checkpoint moved at half, largest error", 4.2e-5, max(move["error"] for move in moves)),
    ]
    targets: list[dict[str, Any]] = [
        {"name": name, "wanted": wanted, "measured": measured, "met": measured <= wanted}
        for name, wanted, measured in bounds
    ]
    repeatable = sum(row["bitwise_repeatable"] for row in rows)
    targets.append(
        {
            "name": "cases that are bitwise equal in two runs",
            "wanted": len(rows),
            "measured": repeatable,
            "met": repeatable == len(rows),
        }
    )
    return targets


def _show(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        mesh = row["mesh"] or {}
        places = " x ".join(f"{name} {size}" for name, size in mesh.items()) or str(row["ranks"])
        print(
            f"{row['strategy']:9} {places:18} {row['model']:8} {row['precision']:8} "
            f"micro {row['micro_batch_size'] or '-'!s:2} stages {row['stages_per_rank']} "
            f"error {row['error']:.1e}  repeatable {row['bitwise_repeatable']}"
        )
    for move in result["moves"]:
        print(f"{move['saved_by']} → {move['continued_by']}: {move['error']:.1e}")
    for target in result["targets"]:
        print(
            f"{target['name']}: wanted {target['wanted']}, measured {target['measured']}, met {target['met']}"
        )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} threads" if names else platform.machine()


if __name__ == "__main__":
    main()
