"""To the device that trains, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

PROCESSOR = torch.device("cpu")


def send_to(device: torch.device, value: Tensor) -> Tensor:
    """`value` on `device`; on a GPU it arrives in the order of the present stream, and nobody waits."""
    if device.type != "cuda":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)
