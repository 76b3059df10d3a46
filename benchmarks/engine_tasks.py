"""The three tasks of the engine benchmark, as a workload that training ranks read and as plain tensors.

mlp      64 → 128 → 10, batch 32                    overhead is everything
cnn      the small CNN on 3x32x32, batch 64         some 10 ms a step
encoder  22 M parameters, 32 rows of 32 tokens      about a second a step
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.models import small_cnn, transformer_encoder
from recaster.models.losses import LossSum, build_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    name: str
    rows: int
    batch: int
    steps: int
    """In one measured run."""
    save_every: int
    rate: float = 1e-3


TASKS = {
    "mlp": Task(name="mlp", rows=1437, batch=32, steps=6000, save_every=2500),
    "cnn": Task(name="cnn", rows=2048, batch=64, steps=60, save_every=50),
    "encoder": Task(name="encoder", rows=512, batch=32, steps=52, save_every=50),
}


def build_model(name: str) -> nn.Module:
    torch.manual_seed(7)
    if name == "mlp":
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    if name == "cnn":
        return small_cnn.build_model(
            channels=3, height=32, width=32, classes=10, hidden=32, dropout=0.1, activation="relu"
        )
    return transformer_encoder.build_model(
        vocabulary=30522, tokens=32, classes=2, width=384, heads=12, depth=6, dropout=0.1
    )


def build_data(name: str) -> tuple[Tensor, Tensor]:
    """Inputs and labels of all rows; random, since only time is measured."""
    random, rows = torch.Generator().manual_seed(3), TASKS[name].rows
    if name == "encoder":
        inputs = torch.randint(0, 30522, (rows, 32), generator=random)
        return inputs, torch.randint(0, 2, (rows,), generator=random)
    shape = (64,) if name == "mlp" else (3, 32, 32)
    return torch.randn(rows, *shape, generator=random), torch.randint(0, 10, (rows,), generator=random)


class Rows:
    """All rows in memory."""

    uniform = True
    lengths = None

    def __init__(self, name: str) -> None:
        self._inputs, self._targets = build_data(name)

    def __len__(self) -> int:
        return len(self._targets)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [str(row) for row in rows.tolist()]

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        chosen = torch.from_numpy(rows)
        return self._inputs[chosen], self._targets[chosen]


class EngineWorkload:
    """What training ranks ask of a workload."""

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        return build_model(plan["task"])

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> Rows:  # noqa: ARG002
        return Rows(plan["task"])

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        return build_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits.argmax(1) == targets).sum()


WORKLOAD = EngineWorkload()
