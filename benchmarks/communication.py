"""How much sooner does a slow link let ranks reach the same loss, with each scheme of communication?

Ranks live in network namespaces, over wires shaped to 100 Mbit/s, to 1 Gbit/s, and not at all; 2 and 4 of
them. All schemes train the same network on the same batches (see communication_task.py), one after the
other in one run. Judged by the time until the held-out loss is the one that plain all-reduce has after a
fixed number of steps.

    make bench-communication        needs root, iproute2 and RECASTER_TEST_DATA with clinc150
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.communication_network import address, enter, network
from benchmarks.communication_targets import TRIED, judge
from benchmarks.record import RESULTS, write_result

STEPS = 32
"""Of plain all-reduce; the loss after them is what the others must reach."""
LINKS = {"unshaped": None, "1 Gbit/s": "1gbit", "100 Mbit/s": "100mbit"}
_PORT = "29507"

SCHEMES: dict[str, dict[str, Any]] = {
    "allreduce": {"communication": "allreduce", "learning_rate": 0.002},
    "bf16": {"communication": "bf16", "learning_rate": 0.002},
    "fp16": {"communication": "fp16", "learning_rate": 0.002},
    "powersgd": {
        "communication": {"scheme": "powersgd", "powersgd": {"rank": 32, "start_step": 1}},
        "learning_rate": 0.002,
    },
    "topk": {"communication": {"scheme": "topk", "topk": {"fraction": 0.02}}, "learning_rate": 0.003},
    "local-sgd": {
        "communication": {"scheme": "local-sgd", "local_sgd": {"every_steps": 16}},
        "learning_rate": 0.004,
    },
    "diloco": {
        "communication": {
            "scheme": "diloco",
            "diloco": {"every_steps": 16, "outer_learning_rate": 1.0, "outer_momentum": 0.2},
        },
        "learning_rate": 0.004,
    },
    "server, sharded": {"communication": "parameter-server", "learning_rate": 0.002},
    "server, central": {
        "communication": {"scheme": "parameter-server", "parameter_server": {"placement": "central"}},
        "learning_rate": 0.002,
    },
    "server, stale": {
        "communication": {"scheme": "parameter-server", "parameter_server": {"staleness": 2}},
        "learning_rate": 0.002,
    },
}
AUTO: dict[str, Any] = {
    "communication": {
        "scheme": "auto",
        "auto": {"accuracy_budget": "local"},
        **{
            key: SCHEMES[name]["communication"][key]
            for name, key in [
                ("powersgd", "powersgd"),
                ("topk", "topk"),
                ("local-sgd", "local_sgd"),
                ("diloco", "diloco"),
            ]
        },
    },
    "learning_rate": 0.004,
}
SCHEMES["auto"] = AUTO
_PERIODS = {"local-sgd": 16, "diloco": 16, "auto": 16}
_TRAINED = {
    "unshaped": ["allreduce", "local-sgd", "diloco"],
    "1 Gbit/s": ["allreduce", "bf16", "powersgd", "topk", "local-sgd", "diloco", "auto", "server, stale"],
    "100 Mbit/s": ["allreduce", "powersgd", "topk", "local-sgd", "diloco", "auto"],
}
"""The schemes that train to the loss; the others run a few steps, since their curve is another's."""
_FEW = {"server, central": 3, "server, stale": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--again", nargs=2, metavar=("RANKS", "LINK"), help="measure this setting only, into the last result"
    )
    again = parser.parse_args().again
    data = Path(os.environ.get("RECASTER_TEST_DATA", ""))
    if not (data / "clinc150").is_dir():
        sys.exit("SKIPPED: set RECASTER_TEST_DATA to a folder that has clinc150/data_full.json")
    settings = [(ranks, link) for ranks in (2, 4) for link in LINKS]
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    if again:
        settings = [(int(again[0]), again[1])]
        rows, facts = _earlier(settings[0])
    for ranks, link in settings:
        sys.stderr.write(f"{ranks} ranks, {link}\n")
        target = next((fact["target"] for fact in facts if fact["ranks"] == ranks), None)
        found = _measure(ranks, link, LINKS[link], data=data, target=target)
        rows += [{"ranks": ranks, "link": link, **row} for row in found.pop("rows")]
        moment = datetime.now(UTC).isoformat(timespec="minutes")
        facts.append({"ranks": ranks, "link": link, "measured": moment, **found})
    write(rows, facts)


def write(rows: list[dict[str, Any]], facts: list[dict[str, Any]]) -> None:
    """Judge and keep what was measured in all settings."""
    rows, targets = judge(rows, facts)
    write_result(
        "communication",
        f"How soon does each scheme reach the held-out loss that {STEPS} steps of plain all-reduce reach?",
        [*rows, *({"kind": "setting", **fact} for fact in facts), {"kind": "tuning", "tried": TRIED}],
        targets,
        ["torch", "numpy"],
    )


def _earlier(setting: tuple[int, str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The last result without what it has of `setting`."""
    kept = [
        row
        for row in json.loads((RESULTS / "communication.json").read_text())["rows"]
        if (row.get("ranks"), row.get("link")) != setting and row.get("kind") != "tuning"
    ]
    facts = [{key: row[key] for key in row if key != "kind"} for row in kept if "kind" in row]
    return [row for row in kept if "kind" not in row], facts


def _measure(ranks: int, link: str, rate: str | None, *, data: Path, target: float | None) -> dict[str, Any]:
    """All schemes on one number of ranks over one kind of link."""
    with tempfile.TemporaryDirectory() as folder, network(ranks, rate=rate):
        plan = {
            "data": str(data),
            "cases": [_case(name, link) for name in SCHEMES if _runs(name, ranks, link)],
            "advised": _case("auto", link),
            "target": target,
            "pairs": 16 if rate is None else 0,
            "block_steps": 3,
            "bare_repeats": 2 if link == "100 Mbit/s" else 5,
            "result": f"{folder}/result.json",
        }
        Path(folder, "plan.json").write_text(json.dumps(plan))
        processes = [_start(rank, ranks, f"{folder}/plan.json") for rank in range(ranks)]
        try:
            codes = [process.wait() for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(codes):
            sys.exit(f"a rank failed: exit codes {codes}")
        found: dict[str, Any] = json.loads(Path(folder, "result.json").read_text())
        return found


def _runs(name: str, ranks: int, link: str) -> bool:
    """All on 4 ranks; on 2 those that train, and the sharded server."""
    if name == "auto" and link == "unshaped":
        return False  # compared with plain training pair by pair instead
    return ranks == 4 or name in _TRAINED[link] or name in ("powersgd", "topk", "server, sharded")


def _case(name: str, link: str) -> dict[str, Any]:
    case = copy.deepcopy(SCHEMES[name])
    judged = name in _TRAINED[link]
    period = _PERIODS.get(name, 1)
    return {
        **case,
        "name": name,
        "judged": judged,
        "steps": _most_steps(name) if judged else _FEW.get(name, 5),
        "least_steps": STEPS,
        "most_seconds": 240,
        "evaluate_every": (period if period > 1 else 4) if judged else 1,
        **({"every": period} if period > 1 else {}),
    }


def _most_steps(name: str) -> int:
    return STEPS if name == "allreduce" else 2 * STEPS


def _start(rank: int, ranks: int, plan: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": address(0),
        "MASTER_PORT": _PORT,
        "GLOO_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        enter(rank, [sys.executable, "-m", "benchmarks.communication_rank", plan]), env=environment
    )


if __name__ == "__main__":
    main()
