"""Small training runs on ranks of this machine, many in one group of processes, without a cast."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from recaster.models import resnet, small_cnn
from recaster.models.losses import LossSum, build_loss, build_token_loss
from recaster.recipe.communication import CommunicationSection
from recaster.recipe.distributed import DistributedSection
from recaster.recipe.training import TrainSection
from recaster.training.checkpoint import find_checkpoints
from recaster.training.rank import train_rank
from recaster.training.trainable import TrainingSet
from tests.contract import strategy_runs

EPOCHS, STEPS, HALF = 2, 10, 5


class _Pictures(strategy_runs.Rows):
    """The rows of numbers as pictures of one channel."""

    def __init__(self, *, enlarged: int) -> None:
        super().__init__("mlp")
        self.enlarged = enlarged

    def batch(self, rows: Any, *, seed: int | None) -> tuple[Tensor, Tensor]:
        inputs, targets = super().batch(rows, seed=seed)
        size = self.enlarged
        return inputs[:, None].repeat_interleave(size, 2).repeat_interleave(size, 3), targets


class _Wide(nn.Module):
    """Needs about 20 MB a row, and next to nothing for its weights.

    In pieces, as layers are: a small block in the hole of a huge one spoils it for the next step, and the
    peak of a few huge blocks differs from run to run by a third.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.classify = nn.Parameter(torch.ones(1)), nn.Linear(24, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        if spare := os.environ.pop("SPARE_MIB", ""):  # all is imported and built by now
            taken = psutil.Process().memory_info().vms + int(spare) * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (taken, taken))
        rows = inputs.flatten(1)
        pieces = [torch.tanh(rows.repeat(1, 2_500) * self.scale) for _ in range(20)]
        wide = torch.stack([piece.unflatten(1, (2_500, 24)).mean(1) for piece in pieces])
        logits: Tensor = self.classify(wide.mean(0))
        return logits


class _Workload:
    """Five classes; `plan["task"]` is the model's name."""

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        if plan["task"] == "cnn":
            return small_cnn.build_model(
                channels=1, height=4, width=6, classes=5, hidden=8, dropout=0.1, activation="relu"
            )
        if plan["task"] == "normalised":  # by batches
            return resnet.build_model(channels=1, height=8, width=12, classes=5, dropout=0.0, depth=20)
        return _Wide() if plan["task"] == "wide" else strategy_runs.build_model(plan["task"])

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> TrainingSet:
        sizes = {"cnn": 1, "normalised": 2}
        size = sizes.get(plan["task"])
        return _Pictures(enlarged=size) if size else strategy_runs.open_rows(plan["task"])

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        by_rows, by_tokens = (build(section, training=training) for build in (build_loss, build_token_loss))
        return lambda logits, targets: (by_tokens if logits.ndim == 3 else by_rows)(logits, targets)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits.argmax(-1) == targets).sum()


WORKLOAD = _Workload()


def write_plan(
    run_dir: Path, task: str, *, ranks: int = 1, communication: str = "allreduce", **train: Any
) -> None:
    """A run of ten steps in two epochs that saves after five and ten of them, changed by `train`."""
    optimizer = {"name": "adamw", "learning_rate": 0.01} | train.pop("optimizer", {})
    wanted = {"seed": 3, "epochs": EPOCHS, "batch_size": strategy_runs.BATCH, "checkpoint_every_steps": HALF}
    section = TrainSection.model_validate(
        {**wanted, "record_every_steps": 1, "optimizer": optimizer, **train}
    )
    strategy = "single" if ranks == 1 else "ddp"
    plan = {
        "workload_module": __name__,
        "task": task,
        "prepared": str(run_dir),
        "train": section.model_dump(),
        "distributed": DistributedSection.model_validate({"strategy": strategy, "ranks": ranks}).model_dump(),
        "communication": CommunicationSection.model_validate(communication).model_dump(),
    }
    run_dir.mkdir(parents=True)
    (run_dir / "plan.json").write_text(json.dumps(plan))


def train_all(run_dirs: Sequence[Path], *, ranks: int = 1, spare_mib: int | None = None) -> None:
    """Train each run, one after the other, on the same processes.

    Args:
        spare_mib: the address space that a rank may take beside what it has at its first step.
    """
    ports = []
    for _ in run_dirs:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    mp.spawn(_work, args=(ranks, list(run_dirs), ports, spare_mib), nprocs=ranks)


def _work(rank: int, ranks: int, run_dirs: list[Path], ports: list[int], spare_mib: int | None) -> None:
    if spare_mib is not None:
        os.environ["SPARE_MIB"] = str(spare_mib)
    for run_dir, port in zip(run_dirs, ports, strict=True):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_PORT": str(port)}
        train_rank(run_dir)


def cut_at_half(run_dir: Path, folder: Path) -> Path:
    """The run as it was after five steps, in `folder`."""
    cut = folder / run_dir.name
    shutil.copytree(run_dir, cut)
    for name in ("result.json", "weights.safetensors"):
        (cut / name).unlink()
    shutil.rmtree(find_checkpoints(cut / "checkpoints")[-1])
    return cut


def result_of(run_dir: Path) -> dict[str, Any]:
    """What the run says of its end."""
    result: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return result


def initial_weights(task: str, seed: int = 3) -> dict[str, Tensor]:
    """The weights a run begins with."""
    from recaster.core.seeds import derive_seed

    torch.manual_seed(derive_seed(seed, "weights"))
    return WORKLOAD.build_model({"task": task}).state_dict()
