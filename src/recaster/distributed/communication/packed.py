"""Many tensors as one flat one, to be sent together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

_MOMENT = "moment"


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """A flat copy, shape `(elements,)`."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


@torch.no_grad()
def unpack(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Write the parts of `flat` into `tensors`, in place."""
    taken = 0
    for tensor in tensors:
        tensor.copy_(flat[taken : taken + tensor.numel()].view_as(tensor))
        taken += tensor.numel()


def moments(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The tensors of the optimizers' states, under names that `load_moments` reads."""
    return {
        f"{_MOMENT}.{number}.{key}": value
        for number, (optimizer, parameter) in enumerate(_parameters(optimizers))
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_moments(optimizers: Sequence[torch.optim.Optimizer], memory: dict[str, Tensor]) -> None:
    """Put back what `moments` returned for the same optimizers."""
    for number, (optimizer, parameter) in enumerate(_parameters(optimizers)):
        prefix = f"{_MOMENT}.{number}."
        found = {
            name.removeprefix(prefix): value for name, value in memory.items() if name.startswith(prefix)
        }
        for key, value in found.items():
            # A step counter stays where the optimizer keeps it, which for most is the CPU.
            old = optimizer.state[parameter].get(key)
            device = old.device if isinstance(old, Tensor) else _home(value, parameter)
            optimizer.state[parameter][key] = value.clone().to(device)


def _home(value: Tensor, parameter: nn.Parameter) -> torch.device:
    return parameter.device if value.dim() else torch.device("cpu")


def _parameters(
    optimizers: Sequence[torch.optim.Optimizer],
) -> Iterator[tuple[torch.optim.Optimizer, nn.Parameter]]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield optimizer, parameter
