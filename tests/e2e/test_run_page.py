"""What a cast says stands on the page of its flow run in Prefect; the terminal keeps to the cast's lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMALL, Command
from tests.faults.processes import await_true

_STEPS = ("snapshot", "validate", "prepare", "train", "evaluate", "register", "promote")
_OVERRIDES = [
    part for text in (*SMALL, "gate.bars.0.min=0.05", "gate.bars.1.max=10.0") for part in ("--set", text)
]
_SPEAK = """
import logging, threading
from prefect import flow
from recaster.core.progress import Progress
from tasks.log_progress import PrefectReporter
@flow(name="speak")
def speak():
    reporter = PrefectReporter("digits")
    reporter.advance(Progress(step=3, steps=3, loss=0.5, samples_per_second=9.0, seconds_left=0.0))
    thread = threading.Thread(target=reporter.say, args=["warning: from a thread of no run"])
    thread.start()
    thread.join()
speak()
"""


def _ask(server: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{server}/api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def _await_log(server: str, flow: str, last: str) -> list[dict[str, Any]]:
    """The log lines of the newest run of `flow`, oldest first, once `last` is among them: rows lag behind."""
    found: list[dict[str, Any]] = []

    def arrived() -> bool:
        runs = _ask(
            server,
            "flow_runs/filter",
            {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1},
        )
        wanted = {"logs": {"flow_run_id": {"any_": [runs[0]["id"]]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        found[:] = _ask(server, "logs/filter", wanted)
        return any(last in line["message"] for line in found)

    await_true(arrived, seconds=60, what=f"{last!r} in the log of the run")
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_run_page_tells_the_cast(command: Command, project: Path) -> None:
    done = command("run", "recipes/digits.yaml", *_OVERRIDES)
    assert done.returncode == 0, done.stderr
    assert [
        line
        for line in done.stderr.splitlines()
        if not line.startswith(("snapshot: ", "train: ", "dvc.lock "))
    ] == []
    server = json.loads(command("status", "--json").stdout)["services"]["prefect"]
    told = [line["message"] for line in _await_log(server, "recast", "digits version 1 promoted")]
    ends = [
        next(number for number, text in enumerate(told) if text.startswith(f"{step}_") and "done in" in text)
        for step in _STEPS
    ]
    assert ends == sorted(ends)
    assert "fetch_base has nothing to do" in told  # fresh weights
    assert sum(text.endswith(" begins") for text in told) == len(_STEPS) + 1
    for said in done.stderr.splitlines():
        assert said in told or said.startswith("train: "), f"{said!r} is not on the page"
    assert any("train: step 40/40" in text for text in told)

    # A refusal ends with its reason there, and without a traceback here.
    refused = command("run", "recipes/digits.yaml", *_OVERRIDES, "--set", "contract.min_rows=5000")
    assert refused.returncode == 3 and "Traceback" not in refused.stderr
    log = _await_log(server, "recast", "contract.min_rows wants 5000")
    assert any(line["level"] == 40 for line in log)

    # What is said outside of any run's context, as by the thread that sends the journal, arrives as well.
    environment = {**os.environ, "PREFECT_API_URL": f"{server}/api"}
    subprocess.run([sys.executable, "-c", _SPEAK], cwd=project, env=environment, check=True, timeout=120)
    log = _await_log(server, "speak", "from a thread of no run")
    levels = {line["message"]: line["level"] for line in log}
    assert levels["from a thread of no run"] == 30
    assert any("train: step 3/3" in text for text in levels)
