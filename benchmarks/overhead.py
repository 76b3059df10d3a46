"""What does Recaster cost over a plain script that does the same work?

Both run interleaved, each time from nothing, against one running Prefect server; CPU seconds are of
the whole process tree (user and system), memory is the largest resident set of a training rank.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import target, write_result

ROOT = Path(__file__).parent.parent
ROUNDS = 5


def measure(command: list[str], cwd: Path, rank_mark: str | None, **environment: str) -> dict[str, float]:
    """CPU seconds, wall seconds and the ranks' peak memory of one run of `command`."""
    started = time.perf_counter()
    with (cwd / "output.log").open("ab") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **environment}, stdout=output, stderr=output
        )
        peak = 0
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
            if rank_mark:
                peak = max(peak, _peak_of_ranks(process.pid, rank_mark))
            time.sleep(0.02)
    if status:
        raise SystemExit((cwd / "output.log").read_text()[-3000:])
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_seconds": round(time.perf_counter() - started, 2),
        "rank_peak_mib": round(peak / 1024, 1),
    }


def _peak_of_ranks(parent: int, mark: str) -> int:
    """The kernel's own high-water mark (KiB) of the living ranks below `parent`."""
    peak = 0
    try:
        for child in psutil.Process(parent).children(recursive=True):
            line = child.cmdline()
            if mark in line and "torch.distributed.run" not in line:
                status = Path(f"/proc/{child.pid}/status").read_text()
                peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
    except (psutil.Error, OSError, IndexError):
        return peak  # it ended while we looked
    return peak


def make_project(folder: Path) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return folder


def main() -> None:
    recaster = [sys.executable, "-m", "recaster.cli"]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        server = make_project(home / "server")
        told = subprocess.run(
            [*recaster, "up", "--json"], cwd=server, check=True, capture_output=True, text=True
        )
        api = json.loads(told.stdout)["prefect"]
        try:
            for number in range(ROUNDS):
                plain = home / f"plain-{number}"
                plain.mkdir()
                script = str(ROOT / "benchmarks" / "plain_cast.py")
                rows.append(
                    {"what": "plain script", **measure([sys.executable, script, str(plain)], plain, "--rank")}
                )
                project = make_project(home / f"cast-{number}")
                run = [*recaster, "run", "recipes/digits.yaml", "--json"]
                first = measure(run, project, "recaster.training", PREFECT_API_URL=api)
                rows.append({"what": "first cast", **first})
                again = measure(run, project, None, PREFECT_API_URL=api)
                rows.append({"what": "nothing changed", **again, "training_steps": _steps_since(project)})
                rows.append({"what": "recaster --help", **measure([*recaster, "--help"], project, None)})
        finally:
            subprocess.run([*recaster, "down"], cwd=server, check=True, capture_output=True)
    report(rows)


def _steps_since(project: Path) -> int:
    """Training steps that the last command did: none when no cast was recorded for it."""
    told = (project / "output.log").read_text()
    last = json.loads([line for line in told.splitlines() if line.startswith('{"name"')][-1])
    trained = next(step for step in last["steps"] if step["step"] == "train")
    return 0 if trained["reused"] else 600


def report(rows: list[dict[str, Any]]) -> None:
    def median(what: str, figure: str) -> float:
        return float(statistics.median(row[figure] for row in rows if row["what"] == what))

    cpu = round(median("first cast", "cpu_seconds") / median("plain script", "cpu_seconds"), 3)
    memory = round(median("first cast", "rank_peak_mib") / median("plain script", "rank_peak_mib"), 3)
    nothing = median("nothing changed", "cpu_seconds")
    steps = max(row["training_steps"] for row in rows if row["what"] == "nothing changed")
    help_seconds = median("recaster --help", "wall_seconds")
    targets = [
        target("first cast, CPU seconds over the plain script's", "at most 1.4", cpu, met=cpu <= 1.4),
        target("nothing changed, CPU seconds", "at most 2.5", nothing, met=nothing <= 2.5),
        target("nothing changed, training steps", "0", steps, met=steps == 0),
        target("recaster --help, seconds", "at most 0.5", help_seconds, met=help_seconds <= 0.5),
        target("training rank, peak memory over plain torch", "at most 1.15", memory, met=memory <= 1.15),
    ]
    packages = ["torch", "prefect", "mlflow", "dvc", "great-expectations", "SQLAlchemy"]
    write_result("overhead", __doc__.splitlines()[0], rows, targets, packages)


if __name__ == "__main__":
    main()
