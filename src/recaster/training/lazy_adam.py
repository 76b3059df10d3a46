"""Adam for tables of which a step sees few rows: the others stay as they are, moments too.

A gradient that is sparse names its rows; a dense one is an ordinary step of Adam.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer


class LazyAdam(Optimizer):
    """Adam (Kingma and Ba 2015) over the rows that have a gradient, as `torch.optim.SparseAdam` has it.

    It differs from torch's in that it takes dense gradients too, and decays the rows it moves, decoupled.
    """

    def __init__(
        self, params: Any, *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 - torch's signature
        """Move the rows of each table that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step, (first, second) = float(state["step"]), group["betas"]
        rate = group["lr"] * (1 - second**step) ** 0.5 / (1 - first**step)
        epsilon = group["eps"] * (1 - second**step) ** 0.5
        decay = group["lr"] * group["weight_decay"]
        if not gradient.is_sparse:
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            _follow(mean, square, gradient, first, second)
            parameter.mul_(1 - decay).addcdiv_(mean, square.sqrt().add_(epsilon), value=-rate)
            return
        rows, found = _distinct_rows(gradient)
        mean, square = (F.embedding(rows, state[name]) for name in ("exp_avg", "exp_avg_sq"))
        _follow(mean, square, found, first, second)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        move = mean.div_(square.sqrt_().add_(epsilon)).mul_(-rate)
        if decay:
            move.sub_(F.embedding(rows, parameter), alpha=decay)
        parameter.index_add_(0, rows, move)


def _distinct_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of rows, each once, and their gradients."""
    rows, found = gradient._indices()[0], gradient._values()
    if not bool(
        (rows[1:] > rows[:-1]).all()
    ):  # a look-up of distinct words gives them in order: nothing to sum
        gradient = gradient.coalesce()
        rows, found = gradient.indices()[0], gradient.values()
    return rows, found


def _follow(mean: Tensor, square: Tensor, gradient: Tensor, first: float, second: float) -> None:
    mean.lerp_(gradient, 1 - first)
    square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
