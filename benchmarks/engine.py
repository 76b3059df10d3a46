"""What does the training engine cost over a plain loop, and what do others cost?

Every contender trains the same model on the same rows, in turn, round after round, each run in a fresh
process; a run's wall time a step is taken from its first step to the end of its last one. Ours logs to
the journal every ten steps and saves checkpoints in between; so do the peers with their own means; the
plain loop does neither. The CNN and the encoder are saved every 50 steps, as a recipe does by default;
the MLP, whose step takes a fraction of a millisecond, every 2,500. What is saved after the last
step is not counted. "memory kept" is the plain loop with the allocator setting that our ranks use.

A task's row keeps its date, so that one can be measured again alone.

    make bench-engine                  on the CPU, with the peers, in an environment of its own
    python -m benchmarks.engine --device cuda --precision bf16 --compile --tasks cnn encoder --no-peers
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.engine_tasks import TASKS, WORKLOAD, Task, build_data, build_model
from benchmarks.record import RESULTS, target, write_result
from recaster.training.host_memory import keep_freed_memory

_PROFILED = 20
"""Steps at the end of a run on a GPU in which its kernels are timed."""
Contender = Callable[[Task, Path, "Options"], float]


class Options:
    """What is the same for all contenders."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device, self.precision = torch.device(arguments.device), arguments.precision
        self.compile, self.threads = arguments.compile, arguments.threads
        self.busy: float | None = None
        """Share of some of our steps' wall time in which the GPU computed."""

    def autocast(self) -> Any:
        if self.precision != "bf16":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def run_plain(task: Task, _: Path, options: Options, *, fused: bool = False) -> float:
    """A hand-written loop over tensors in memory: nothing but the steps."""
    model = build_model(task.name).to(options.device)
    inputs, labels = (value.to(options.device) for value in build_data(task.name))
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.rate, weight_decay=0.01, fused=fused or None)
    if options.compile:
        model.compile()
    done, order = 0, torch.empty(0)
    started = 0.0
    while done < task.steps:
        if not started and (not options.compile or done == 5):
            options.wait()
            started, first = time.perf_counter(), done
        start = (done * task.batch) % (task.rows - task.rows % task.batch)
        if start == 0:
            order = torch.randperm(task.rows, device=options.device)
        rows = order[start : start + task.batch]
        with options.autocast():
            logits = model(inputs[rows])
        loss = F.cross_entropy(logits.float(), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
    options.wait()
    return (time.perf_counter() - started) / (done - first)


def run_plain_fused(task: Task, folder: Path, options: Options) -> float:
    return run_plain(task, folder, options, fused=True)


def run_plain_kept(task: Task, folder: Path, options: Options) -> float:
    keep_freed_memory()
    return run_plain(task, folder, options, fused=True)


def run_recaster(task: Task, folder: Path, options: Options) -> float:
    """The engine's own rank, from its first step to its last checkpoint."""
    keep_freed_memory()
    from recaster.distributed.mesh import join_mesh
    from recaster.recipe.distributed import DistributedSection
    from recaster.recipe.training import Optimizer, TrainSection
    from recaster.training.rank import Run

    steps_per_epoch = -(-task.rows // task.batch)
    epochs = -(-task.steps // steps_per_epoch)
    train = TrainSection(
        seed=7,
        epochs=epochs,
        batch_size=task.batch,
        optimizer=Optimizer(name="adamw", learning_rate=task.rate),
        precision=options.precision,
        compile=options.compile,
        deterministic=options.device.type == "cpu",
        validate_every_epochs=epochs + 1,
        checkpoint_every_steps=task.save_every,
    ).model_dump()
    section = DistributedSection(
        strategy="single", ranks=1, min_ranks=1, threads_per_rank=options.threads
    ).model_dump()
    plan = {
        "workload_module": "benchmarks.engine_tasks",
        "task": task.name,
        "prepared": str(folder),
        "train": train,
        "distributed": section,
    }
    joined = join_mesh(device=options.device.type, threads=options.threads, shape={"data": 1})
    with _launched_alone(), joined as mesh:
        run = Run(folder, plan, WORKLOAD, mesh, None)
        run.steps = run.feed.steps = task.steps
        run.measured_from = 5 if options.compile else 0  # type: ignore[attr-defined]
        return _time_steps(run, options)


def _time_steps(run: Any, options: Options) -> float:
    from recaster.training import loop, rank

    marks: list[float] = []
    steps = loop.train_steps

    def marked(*args: Any, **kwargs: Any) -> Any:
        marks.append(time.perf_counter())
        profile: tuple[Any, float] | None = None
        for report in steps(*args, **kwargs):
            if report.step == run.steps:
                options.wait()
                marks.append(time.perf_counter())
                if profile:
                    options.busy = _end_profile(profile, options)
            yield report
            if report.step == run.measured_from:
                options.wait()
                marks[0] = time.perf_counter()
            if options.device.type == "cuda" and run.steps - report.step == _PROFILED:
                profile = _start_profile(options)

    rank.train_steps = marked  # type: ignore[attr-defined]
    run._end_epoch = lambda report, _: report.step == run.steps
    run._write_result = lambda **_: None
    try:
        run.train()
    finally:
        rank.train_steps = steps  # type: ignore[attr-defined]
    return (marks[1] - marks[0]) / float(run.steps - run.measured_from)


def _start_profile(options: Options) -> tuple[Any, float]:
    options.wait()
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    profiler.start()
    return profiler, time.perf_counter()


def _end_profile(begun: tuple[Any, float], options: Options) -> float:
    profiler, started = begun
    options.wait()
    wall = time.perf_counter() - started
    profiler.stop()
    busy = sum(event.self_device_time_total for event in profiler.key_averages())
    return float(busy) / 1e6 / wall


def run_accelerate(task: Task, folder: Path, options: Options) -> float:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, PartialState):
        state._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(cpu=options.device.type == "cpu", mixed_precision=_mixed(options))
    model, optimizer, loader = accelerator.prepare(*_usual_parts(task))
    done, started = 0, time.perf_counter()
    while done < task.steps:
        for inputs, labels in loader:
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += 1
            if done % 10 == 0:
                sys.stderr.write(f"{done} {loss.item():.4f}\n")
            if done % task.save_every == 0:
                accelerator.save_state(str(folder / f"{done}"))
            if done == task.steps:
                break
    return (time.perf_counter() - started) / done


def _mixed(options: Options) -> str:
    return "bf16" if options.precision == "bf16" else "no"


def _usual_parts(task: Task) -> tuple[Any, Any, Any]:
    from torch.utils.data import DataLoader, TensorDataset

    model = build_model(task.name)
    loader = DataLoader(TensorDataset(*build_data(task.name)), task.batch, shuffle=True, drop_last=True)
    return model, torch.optim.AdamW(model.parameters(), lr=task.rate, weight_decay=0.01), loader


def run_lightning(task: Task, folder: Path, options: Options) -> float:
    import lightning
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    model, optimizer, loader = _usual_parts(task)
    marks: list[float] = []

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, _: int) -> Any:
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            return optimizer

    class Clock(Callback):  # type: ignore[misc]
        def on_train_start(self, *_: Any) -> None:
            marks.append(time.perf_counter())

        def on_train_end(self, *_: Any) -> None:
            marks.append(time.perf_counter())

    trainer = lightning.Trainer(
        accelerator=options.device.type if options.device.type == "cpu" else "gpu",
        devices=1,
        max_steps=task.steps,
        max_epochs=-1,
        precision="bf16-mixed" if options.precision == "bf16" else "32-true",
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        logger=CSVLogger(str(folder)),
        callbacks=[ModelCheckpoint(folder, every_n_train_steps=task.save_every, save_top_k=-1), Clock()],
        enable_model_summary=False,
    )
    trainer.fit(Module(), loader)
    return (marks[1] - marks[0]) / task.steps


def run_transformers(task: Task, folder: Path, options: Options) -> float:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    inputs, labels = build_data(task.name)
    marks: list[float] = []

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build_model(task.name)

        def forward(self, inputs: Any, labels: Any) -> Any:
            logits = self.model(inputs)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    rows = [{"inputs": one, "labels": label} for one, label in zip(inputs, labels, strict=True)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=task.steps,
        per_device_train_batch_size=task.batch,
        learning_rate=task.rate,
        weight_decay=0.01,
        max_grad_norm=1.0,
        logging_steps=10,
        save_steps=task.save_every,
        use_cpu=options.device.type == "cpu",
        bf16=options.precision == "bf16",
        report_to=[],
        dataloader_drop_last=True,
        optim="adamw_torch",
    )
    Trainer(model=Wrapped(), args=arguments, train_dataset=rows, callbacks=[Clock()]).train()
    return (marks[1] - marks[0]) / task.steps


OURS: dict[str, Contender] = {
    "plain": run_plain,
    "plain, fused optimizer": run_plain_fused,
    "plain, fused optimizer, memory kept": run_plain_kept,
    "recaster": run_recaster,
}
PEERS: dict[str, tuple[str, Contender]] = {
    "accelerate": ("accelerate", run_accelerate),
    "lightning": ("lightning", run_lightning),
    "transformers Trainer": ("transformers", run_transformers),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--no-peers", action="store_true", help="only the plain loops and ours")
    arguments = parser.parse_args()
    contenders = [*OURS, *([] if arguments.no_peers else PEERS)]
    name = "engine" if arguments.device == "cpu" else "engine-gpu"
    rows = _read_rows(name) | {one: _measure(TASKS[one], contenders, arguments) for one in arguments.tasks}
    ordered = [rows[one] for one in TASKS if one in rows]
    packages = ["torch", *(package for package, _ in PEERS.values() if find_spec(package))]
    question = "What does a training step cost over a plain loop?"
    write_result(name, question, ordered, _targets(ordered, gpu=arguments.device == "cuda"), packages)


def _read_rows(name: str) -> dict[str, dict[str, Any]]:
    """Those measured before, by task: each task's contenders are compared among themselves alone."""
    path = RESULTS / f"{name}.json"
    return {row["task"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


@contextlib.contextmanager
def _launched_alone() -> Iterator[None]:
    """What a launcher tells its only rank; the peers would take it for a cluster."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    places = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    told = {**places, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update(told)
    try:
        yield
    finally:
        for name in told:
            del os.environ[name]


def _run_once(task: Task, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run in this process, which is used for nothing else."""
    torch.set_num_threads(arguments.threads)
    options = Options(arguments)
    run = OURS[name] if name in OURS else PEERS[name][1]
    folder, said = Path(tempfile.mkdtemp(prefix="engine-")), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            seconds = run(task, folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak, "busy": options.busy}


def _measure(task: Task, contenders: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    context = multiprocessing.get_context("spawn")
    for number in range(arguments.rounds + 1):  # the first warms up and does not count
        for name in contenders:
            with ProcessPoolExecutor(1, mp_context=context) as process:
                found = process.submit(_run_once, task, name, arguments).result()
            if number:
                runs[name].append(found)
            sys.stderr.write(f"{task.name} round {number} {name}: {1000 * found['seconds']:.3f} ms a step\n")
    times = {name: [run["seconds"] for run in of_one] for name, of_one in runs.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    # Ratios within a round, since the machine is not the same from one minute to the next.
    ratio = {
        f"{name} / {base}": statistics.median(
            one / other for one, other in zip(times[name], times[base], strict=True)
        )
        for name in times
        for base in OURS
        if base not in (name, "recaster")
    }
    busy = [run["busy"] for run in runs["recaster"] if run["busy"] is not None]
    peaks = {name: statistics.median(run["peak"] for run in of_one) for name, of_one in runs.items()}
    return {
        "task": task.name,
        "date": datetime.now(UTC).date().isoformat(),
        **({"gpu_busy": round(statistics.median(busy), 3)} if busy else {}),
        "milliseconds_a_step": {name: round(1000 * value, 3) for name, value in medians.items()},
        "ratio": {name: round(value, 3) for name, value in ratio.items()},
        "samples_per_second": {name: round(task.batch / value, 1) for name, value in medians.items()},
        "peak_megabytes": {name: round(value) for name, value in peaks.items()},
    }


def _targets(rows: list[dict[str, Any]], *, gpu: bool) -> list[dict[str, Any]]:
    bounds = {"mlp": 1.0, "cnn": 1.03, "encoder": 1.03}
    targets = []
    for row in rows:
        task, found = row["task"], row["ratio"]
        base = "plain" if task == "mlp" else "plain, fused optimizer"
        measured = found[f"recaster / {base}"]
        targets.append(
            target(
                f"{task}, step over the {base} loop",
                f"at most {bounds[task]}",
                measured,
                met=measured <= bounds[task],
            )
        )
        if gpu:
            busy = row["gpu_busy"]
            targets.append(
                target(f"{task}, share of a step the GPU is busy", "at least 0.9", busy, met=busy >= 0.9)
            )
            continue
        for peer in PEERS:
            if peer in row["milliseconds_a_step"]:
                over = round(row["milliseconds_a_step"]["recaster"] / row["milliseconds_a_step"][peer], 3)
                targets.append(target(f"{task}, step over {peer}", "below 1", over, met=over < 1))
    return targets


if __name__ == "__main__":
    main()
