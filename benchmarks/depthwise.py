"""How much quicker is a step in bf16 on a CPU with quickened depthwise convolutions?

Forward, backward and AdamW over 64 made-up pictures in one thread, channels last: the network as torch
computes it in float32 and in bf16, and with the gradients of `recaster.training.depthwise`, in turn.

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
    labels = [str(number) for number in range(_CLASSES)]
    convnext = {**_SHAPE, "architecture": "convnext-tiny", "labels": labels, "size": None}
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


def _measure(name: str, network: nn.Module) -> dict[str, Any]:
    torch.manual_seed(1)
    images = torch.rand(_PICTURES, 3, _SIDE, _SIDE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(_CLASSES, (_PICTURES,))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    quickened = copy.deepcopy(network)
    layers = quicken_depthwise(quickened)
    ways = {
        "float32": _Trained(copy.deepcopy(network), bf16=False),
        "plain": _Trained(network, bf16=True),
        "ours": _Trained(quickened, bf16=True),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(_ROUNDS + 1):
        for way, trained in ways.items():
            spent = trained.step(images, labels)
            if number:  # the first one makes kernels
                seconds[way].append(spent)
    float32, plain, ours = (statistics.median(seconds[way]) for way in ways)
    return {
        "network": name,
        "layers": layers,
        "float32_ms": round(float32 * 1000),
        "bf16_ms": round(plain * 1000),
        "quickened_bf16_ms": round(ours * 1000),
        "times_as_fast": round(plain / ours, 2),
    }


def main() -> int:
    """Measure, and write the result."""
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = [_measure(name, network) for name, network in _networks().items()]
    wanted = []
    for row in rows:
        gain, over = row["times_as_fast"], round(row["float32_ms"] / row["quickened_bf16_ms"], 2)
        name = f"{row['network']}, quickened bf16: times as fast as"
        wanted.append(target(f"{name} bf16", "above 1", gain, met=gain > 1))
        wanted.append(target(f"{name} float32", "above 1", over, met=over > 1))
    write_result("depthwise", __doc__.splitlines()[0], rows, wanted, ["torch"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
