"""Models of the library over random rows, as a workload that training ranks read.

A plan's `model` names one; its `arguments` are those of its `build_model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.models import mlp, small_cnn, transformer_encoder
from recaster.models.losses import LossSum, build_loss

_MODELS: dict[str, Any] = {"cnn": small_cnn, "mlp": mlp, "encoder": transformer_encoder}
_VALIDATION_SHARE = 8


def write_rows(folder: Path, plan: dict[str, Any]) -> None:
    """The splits `train` and `validation`, of `plan["rows"]` and an eighth of that, to be mapped."""
    arguments, chance = plan["arguments"], np.random.default_rng(3)
    for split, rows in (("train", plan["rows"]), ("validation", plan["rows"] // _VALIDATION_SHARE)):
        if plan["model"] == "encoder":
            inputs: NDArray[Any] = chance.integers(0, arguments["vocabulary"], (rows, arguments["tokens"]))
        elif plan["model"] == "mlp":
            inputs = chance.normal(size=(rows, arguments["features"])).astype(np.float32)
        else:
            shape = (rows, arguments["channels"], arguments["height"], arguments["width"])
            inputs = chance.random(shape, dtype=np.float32)
        np.save(folder / f"{split}.inputs.npy", inputs)
        np.save(folder / f"{split}.labels.npy", chance.integers(0, arguments["classes"], rows))


class _Rows:
    """A split, memory-mapped."""

    uniform = True
    lengths = None

    def __init__(self, folder: Path, split: str) -> None:
        self._inputs = np.load(folder / f"{split}.inputs.npy", mmap_mode="r")
        self._labels = np.load(folder / f"{split}.labels.npy")

    def __len__(self) -> int:
        return len(self._labels)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [str(row) for row in rows.tolist()]

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return torch.from_numpy(self._inputs[rows]), torch.from_numpy(self._labels[rows])


class _Workload:
    """What training ranks ask of a workload."""

    def build_model(self, plan: dict[str, Any]) -> nn.Module:
        model: nn.Module = _MODELS[plan["model"]].build_model(**plan["arguments"])
        return model

    def open_split(self, folder: Path, split: str, plan: dict[str, Any]) -> _Rows:  # noqa: ARG002
        return _Rows(folder, split)

    def build_loss(self, section: dict[str, Any], *, training: bool) -> LossSum:
        return build_loss(section, training=training)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (logits.argmax(1) == targets).sum()


WORKLOAD = _Workload()
