"""Linear probe: the head alone, over features of the frozen encoder that are computed once.

train.features.npy   (rows, width) float32      train.labels.npy   train.ids.json
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.core.files import read_json, write_json
from recaster.customization.protocol import freeze_all_but
from recaster.models.losses import LossSum
from recaster.models.open_models import Headed

_BATCH_ROWS = 64


class Head(nn.Module):
    """The head of `model`, over its features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        """Logits of features `(rows, width)`."""
        logits: Tensor = self.model.decide(features)  # type: ignore[operator]
        return logits


class FeatureSet:
    """One split as the head sees it."""

    uniform = True
    lengths = None

    def __init__(self, folder: Path, split: str) -> None:
        self._features = np.load(folder / f"{split}.features.npy", mmap_mode="r")
        self._targets = np.load(folder / f"{split}.labels.npy")
        self._ids: list[str] = read_json(folder / f"{split}.ids.json")

    def __len__(self) -> int:
        """Rows of the split."""
        return len(self._ids)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """The ids of `rows`."""
        return [self._ids[row] for row in rows.tolist()]

    def batch(self, rows: NDArray[np.int64], *, seed: int | None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Features `(rows, width)` and targets `(rows,)`."""
        return torch.from_numpy(self._features[rows]), torch.from_numpy(self._targets[rows])


class Probe:
    """Train the head on cached features; the model keeps its form."""

    def apply(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """The head alone, over a frozen model."""
        freeze_all_but(model, _headed(model).head_names())
        return Head(model)

    def merge(self, model: nn.Module, plan: Mapping[str, Any]) -> nn.Module:  # noqa: ARG002
        """The whole model, with the trained head in its place."""
        whole: nn.Module = model.model  # type: ignore[assignment]
        return whole

    def build_loss(self, loss_sum: LossSum, plan: Mapping[str, Any]) -> LossSum:  # noqa: ARG002
        """The workload's own."""
        return loss_sum

    def inputs(self, plan: Mapping[str, Any]) -> Path | None:
        """The features."""
        return Path(plan["features"])


@torch.no_grad()
def compute_features(
    model: nn.Module, open_split: Callable[[str], Any], folder: Path, *, splits: tuple[str, ...]
) -> dict[str, Any]:
    """Write what the head of `model` sees of each row into `folder`.

    Args:
        open_split: the prepared split of a name, as training reads it.

    Returns:
        Rows of each split, the features' width, and the processor seconds that they took.

    Raises:
        RecipeError: the model has no head of its own.
    """
    began = time.process_time()
    encode = _headed(model.eval()).encode
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Convolutions are about twice as fast so, and other weights stay as they are; torch's types lack it.
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows: dict[str, int] = {}
    width = 0
    for split in splits:
        data = open_split(split)
        order = np.arange(len(data)) if data.lengths is None else np.argsort(data.lengths, kind="stable")
        features: list[Tensor] = []
        targets: list[Tensor] = []
        for start in range(0, len(order), _BATCH_ROWS):
            inputs, wanted = data.batch(order[start : start + _BATCH_ROWS], seed=None)
            features.append(encode(inputs.to(device)).float().cpu())
            targets.append(wanted)
        np.save(folder / f"{split}.features.npy", torch.cat(features).numpy())
        np.save(folder / f"{split}.labels.npy", torch.cat(targets).numpy())
        write_json(folder / f"{split}.ids.json", data.ids(order))
        rows[split], width = len(order), features[0].shape[1]
    return {"rows": rows, "width": width, "cpu_seconds": round(time.process_time() - began, 2)}


def _headed(model: nn.Module) -> Headed:
    if isinstance(model, Headed):
        return model
    raise RecipeError(
        "This model has no head that could be trained apart from its encoder.",
        where="customize.method",
        value=f"probe with {type(model).__name__}",
        repair="use full, or lora",
    )


METHOD = Probe()
