"""How much quicker is a step on a CPU with quickened depthwise convolutions?

Forward, backward and AdamW over 64 made-up pictures in one thread, channels last: the network as torch
computes it, and with the gradients of `recaster.training.depthwise`, in turn. Float32 and bf16.

    make bench-depthwise
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.record import target, write_result
from recaster.models import efficientnet_lite0, mobilenet_v2
from recaster.models.picture_models import build_picture_model
from recaster.training.depthwise import quicken_depthwise
from recaster.training.host_memory import keep_freed_memory

_ROUNDS, _PICTURES, _SIDE, _CLASSES = 5, 64, 96, 10
_SHAPE: dict[str, Any] = {"channels": 3, "height": _SIDE, "width": _SIDE, "classes": _CLASSES, "dropout": 0.0}


def _networks() -> dict[str, nn.Module]:
    convnext = {**_SHAPE, "architecture": "convnext-tiny", "labels": [str(name) for name in range(_CLASSES)]}
    return {
        "mobilenet-v2": mobilenet_v2.build_model(**_SHAPE),
        "efficientnet-lite0": efficientnet_lite0.build_model(**_SHAPE),
        "convnext-tiny": build_picture_model(convnext, None),
    }


class _Trained:
    """A network and its optimizer."""

    def __init__(self, network: nn.Module, *, bf16: bool) -> None:
        self._network, self._bf16 = network.train(), bf16
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Seconds of one."""
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            loss = F.cross_entropy(self._network(images), labels)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return time.perf_counter() - started


def _measure(name: str, network: nn.Module, precision: str) -> dict[str, Any]:
    torch.manual_seed(1)
    images = torch.rand(_PICTURES, 3, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(_CLASSES, (_PICTURES,))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    quickened = copy.deepcopy(network)
    layers, bf16 = quicken_depthwise(quickened), precision == "bf16"
    ways = {"plain": _Trained(network, bf16=bf16), "ours": _Trained(quickened, bf16=bf16)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(_ROUNDS + 1):
        for way, trained in ways.items():
            spent = trained.step(images, labels)
            if number:  # the first one makes kernels
                seconds[way].append(spent)
    plain, ours = (statistics.median(seconds[way]) for way in ways)
    return {
        "network": name,
        "precision": precision,
        "layers": layers,
        "plain_ms": round(plain * 1000),
        "ours_ms": round(ours * 1000),
        "times_as_fast": round(plain / ours, 2),
    }


def main() -> int:
    """Measure, and write the result."""
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = [
        _measure(name, network, precision)
        for precision in ("float32", "bf16")
        for name, network in _networks().items()
    ]
    wanted = [
        target(
            f"{row['network']}, {row['precision']}: times as fast as torch",
            ">= 0.95",
            row["times_as_fast"],
            met=row["times_as_fast"] >= 0.95,
        )
        for row in rows
    ]
    write_result("depthwise", __doc__.splitlines()[0], rows, wanted, ["torch"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
