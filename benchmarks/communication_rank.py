"""One rank of the communication benchmark: trains under one scheme after another, and times each step.

python -m benchmarks.communication_rank PLAN.json      with torch's RANK, WORLD_SIZE, MASTER_ADDR …
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from benchmarks.communication_task import build_model, loss_sum, read_task
from recaster.distributed.communication.adviser import Adviser
from recaster.distributed.communication.stale import StaleServer
from recaster.distributed.mesh import Mesh, build_mesh
from recaster.distributed.parent_death import die_with_parent
from recaster.distributed.strategies.build import build_communication, build_strategy, mesh_shape
from recaster.recipe.communication import CommunicationSection
from recaster.recipe.distributed import DistributedSection
from recaster.recipe.training import Optimizer
from recaster.training.feed import Feed
from recaster.training.loop import TrainState, train_steps
from recaster.training.optimizers import build_optimizers
from recaster.training.sampler import Sampler
from recaster.training.update import Update

BATCH = 128
_BUCKET_MIB = 25
_UNTIMED = 2
"""Steps whose time is not the scheme's own: buffers are made, buckets are arranged."""


class Runner:
    """One scheme on this rank."""

    def __init__(self, case: dict[str, Any], task: tuple[Any, Any, int], *, steps: int) -> None:
        self.case, (self.train, self.held_out, classes) = case, task
        ranks = dist.get_world_size()
        section = DistributedSection(strategy="ddp", ranks=ranks, min_ranks=ranks, bucket_mib=_BUCKET_MIB)
        self.mesh: Mesh = build_mesh(mesh_shape(section.model_dump()), device=torch.device("cpu"))
        self.strategy = build_strategy(
            build_model(classes),
            section.model_dump(),
            mesh=self.mesh,
            precision="float32",
            batch_size=BATCH,
            micro_batch_size=None,
            communication=build_communication(
                CommunicationSection.model_validate(case["communication"]).model_dump(),
                mesh=self.mesh,
                bucket_mib=_BUCKET_MIB,
                last_step=steps,
                folder=Path(tempfile.mkdtemp()),
            ),
        )
        options = Optimizer(name="adamw", learning_rate=case["learning_rate"], weight_decay=0.01)
        update = Update(
            self.strategy.module,
            build_optimizers(self.strategy.module, options.model_dump(), layers=[]),
            self.strategy.communication,
            self.mesh,
            precision="float32",
            max_gradient_norm=1.0,
        )
        feed = Feed(
            self.train,
            Sampler(samples=len(self.train), batch_size=BATCH, seed=1),
            self.strategy,
            self.mesh,
            micro_batch_size=None,
            seed=1,
            steps=steps,
        )
        self._loop = train_steps(
            TrainState(strategy=self.strategy, update=update, average=None, step=0),
            feed=feed,
            loss_sum=loss_sum,
            rate_at=lambda _: case["learning_rate"],
            mesh=self.mesh,
            seed=1,
        )
        self.step = 0

    def take_step(self) -> float:
        """One step of the product's loop; its seconds."""
        started = time.perf_counter()
        self.step = next(self._loop).step
        return time.perf_counter() - started

    def close(self) -> None:
        """End the loop and what the scheme runs beside it."""
        self._loop.close()
        self.strategy.communication.close()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean nats; each rank scores its part, so that weights must be the same on all."""
        self.strategy.module.eval()
        mine = slice(self.mesh.rank, None, self.mesh.world)
        total = loss_sum(self.strategy.module(self.held_out.inputs[mine]), self.held_out.targets[mine])
        dist.all_reduce(total)
        self.strategy.module.train()
        return float(total) / len(self.held_out)


def _bytes() -> list[int]:
    """Bytes that this host's wire has carried, out and in."""
    folder = Path("/sys/class/net/eth0/statistics")
    if not folder.exists():
        return [0, 0]
    return [int((folder / name).read_text()) for name in ("tx_bytes", "rx_bytes")]


def run_case(case: dict[str, Any], task: tuple[Any, Any, int], *, target: float | None) -> dict[str, Any]:
    """Train until the loss is `target` or the steps are used up."""
    # What a scheme does after its last step belongs to training, not to the price of a step.
    runner = Runner(case, task, steps=case["steps"] if case["judged"] else 10**6)
    every = case["evaluate_every"]
    curve: list[list[float]] = []
    times: list[float] = []
    carried: list[list[int]] = []
    while runner.step < case["steps"]:
        dist.barrier()
        before = _bytes()
        times += [runner.take_step() for _ in range(min(every, case["steps"] - runner.step))]
        carried.append([after - start for after, start in zip(_bytes(), before, strict=True)])
        if case["judged"]:
            curve.append([runner.step, sum(times), runner.held_out_loss()])
            reached = target is not None and curve[-1][2] <= target and runner.step >= case["least_steps"]
            if reached or is_out_of_time(times, case):
                break
    runner.close()
    return _facts(case, times, carried, curve, runner.strategy.communication)


def is_out_of_time(times: list[float], case: dict[str, Any]) -> bool:
    """Whether the first rank has used up the case's time; the same on all ranks."""
    used = torch.tensor(sum(times))
    dist.broadcast(used, src=0)
    return float(used) > float(case["most_seconds"])


def _facts(
    case: dict[str, Any],
    times: list[float],
    carried: list[list[int]],
    curve: list[list[float]],
    communication: Any,
) -> dict[str, Any]:
    later = carried[1:] or carried
    steps = len(times) - min(case["evaluate_every"], len(times)) * (len(carried) > 1)
    most = torch.tensor(max(sum(pair[way] for pair in later) / steps for way in (0, 1)))
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    settled = times[_UNTIMED:]
    periodic = case["evaluate_every"] > 1 and "every" in case
    facts: dict[str, Any] = {
        "steps_run": len(times),
        "periodic": periodic,
        "step_seconds": statistics.fmean(times[min(case["every"], len(times) - 1) :])
        if periodic
        else statistics.median(settled),
        "bytes_per_step": float(most),
        "curve": curve,
    }
    if isinstance(communication, Adviser):
        facts["chosen"] = communication.chosen
        facts["predicted"] = {item["scheme"]: item["seconds"] for item in communication.record["predictions"]}
        facts["measured_seconds"] = communication.record.get("measured_seconds")
    if isinstance(communication, StaleServer):
        facts["staleness"] = {
            "mean": statistics.fmean(communication.lag),
            "largest": max(communication.lag),
        }
    return facts


def compare(plan: dict[str, Any], task: tuple[Any, Any, int]) -> dict[str, Any]:
    """Plain and advised training in turn, pair by pair: the ratio of their steps."""
    blocks, size = plan["pairs"], plan["block_steps"]
    cases = [plan["cases"][0], plan["advised"]]
    runners = [Runner(case, task, steps=10**6) for case in cases]
    for runner, steps in zip(runners, (4, 20), strict=True):  # the adviser's measuring and probation are over
        for _ in range(steps):
            runner.take_step()
    ratios: list[float] = []
    means: tuple[list[float], list[float]] = ([], [])
    for number in range(blocks):
        spent = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            dist.barrier()
            spent[which] = sum(runners[which].take_step() for _ in range(size)) / size
            means[which].append(spent[which])
        ratios.append(spent[1] / spent[0])
    for runner in runners:
        runner.close()
    advised = cast(Adviser, runners[1].strategy.communication)
    return {
        "plain_seconds": statistics.median(means[0]),
        "advised_seconds": statistics.median(means[1]),
        "ratio": statistics.median(ratios),
        "quartiles": statistics.quantiles(ratios, n=4),
        "pairs": blocks,
        "chosen": advised.chosen,
    }


def time_all_reduce(elements: int, *, repeats: int) -> float:
    """Seconds of one bare all-reduce of float32 elements."""
    flat, times = torch.zeros(elements), []
    for _ in range(repeats):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(flat)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    die_with_parent()  # a rank that outlives the driver would hold the wires
    plan = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    task = read_task(Path(plan["data"]))
    dist.init_process_group("gloo")
    rows = []
    elements = sum(value.numel() for value in build_model(task[2]).parameters())
    facts: dict[str, Any] = {
        "parameters": elements,
        "bare_all_reduce_seconds": time_all_reduce(elements, repeats=plan["bare_repeats"]),
    }
    target = plan["target"]
    for case in plan["cases"]:
        started = time.perf_counter()
        row = {"scheme": case["name"], **run_case(case, task, target=target)}
        rows.append(row)
        if case["name"] == "allreduce" and case["judged"] and target is None:
            target = row["curve"][-1][2]
        if dist.get_rank() == 0:
            last = row["curve"][-1][2] if row["curve"] else float("nan")
            sys.stderr.write(
                f"  {case['name']:24} {row['step_seconds']:.3f} s/step, {row['steps_run']} steps, "
                f"loss {last:.3f}, took {time.perf_counter() - started:.0f} s\n"
            )
            sys.stderr.flush()
    if plan["pairs"]:
        facts["comparison"] = compare(plan, task)
    if dist.get_rank() == 0:
        Path(plan["result"]).write_text(json.dumps({**facts, "target": target, "rows": rows}))
    dist.barrier()
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
