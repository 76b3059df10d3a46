"""Gradients of matrices as products of two thin ones: PowerSGD (Vogels et al. 2019), by torch's own hook."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

from recaster.core.errors import RecipeError
from recaster.distributed.communication.exchange import Gradients, GradientScheme, Residual, done

_BUCKET = 0
_TORCH_EARLIEST = 2


class PowerSGD(GradientScheme):
    """torch's `powerSGD_hook`, over one bucket, with a memory that a checkpoint can hold.

    Args of the constructor are the recipe's: see `PowerSGDOptions`.
    """

    def __init__(
        self,
        group: dist.ProcessGroup,
        *,
        rank: int,
        start_step: int,
        warm_start: bool,
        error_feedback: bool,
    ) -> None:
        super().__init__(group)
        self._state = PowerSGDState(
            process_group=group,
            matrix_approximation_rank=rank,
            start_powerSGD_iter=max(start_step - 1, _TORCH_EARLIEST),
            warm_start=warm_start,
            use_error_feedback=error_feedback,
            batch_tensors_with_same_shape=True,
        )
        # torch refuses an earlier start because buckets are rearranged after the first step; we follow that.
        self._state.start_powerSGD_iter = start_step - 1
        self._residual = Residual()

    def attach(self, replica: Any) -> None:
        """See `Communication.attach`.

        Raises:
            RecipeError: CPU ranks on a host with GPUs, which torch's hook waits for all the same.
        """
        super().attach(replica)
        if self._parameters[0].device.type == "cpu" and torch.cuda.is_available():
            raise RecipeError(
                "torch's PowerSGD cannot run on the CPU of a host whose GPUs it sees.",
                where="communication.scheme",
                value="powersgd with distributed.device: cpu",
                repair="set CUDA_VISIBLE_DEVICES to nothing, or use topk",
            )

    def exchange(self, gradients: Gradients) -> torch.futures.Future[Tensor]:
        """See `Exchange`."""
        state = self._state
        if state.use_error_feedback and state.iter >= state.start_powerSGD_iter:
            state.error_dict[_BUCKET] = self._residual.arranged(gradients)
        # Waited for here: ranks that go through the chain of futures at their own pace would send the next
        # collective in another order.
        flat = powerSGD_hook(state, gradients).wait()
        if _BUCKET in state.error_dict:
            self._residual.keep(state.error_dict[_BUCKET])
        return done(flat)

    def memory(self) -> dict[str, Tensor]:
        """Error feedback, both factors, the random state that the first factors come from, steps taken."""
        state = self._state
        _, keys, position, *_ = state.rng.get_state(legacy=True)  # always MT19937
        memory = {
            "powersgd.steps": torch.tensor(state.iter),
            "powersgd.random": torch.tensor(np.append(keys, position).astype(np.int64)),
        }
        residual = self._residual.in_model_order()
        if residual is not None:
            memory["powersgd.residual"] = residual
        if _BUCKET in state.q_memory_dict:
            memory["powersgd.left"] = state.p_memory_dict[_BUCKET]
            memory["powersgd.right"] = state.q_memory_dict[_BUCKET]
        return memory

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """See `Communication.load_memory`."""
        if not memory:
            return
        state = self._state
        state.iter = int(memory["powersgd.steps"])
        random = memory["powersgd.random"].numpy()
        state.rng.set_state(("MT19937", random[:-1].astype(np.uint32), int(random[-1])))
        self._residual.load(memory.get("powersgd.residual"))
        if "powersgd.right" in memory:
            device = self._parameters[0].device
            state.p_memory_dict[_BUCKET] = memory["powersgd.left"].clone().to(device)
            state.q_memory_dict[_BUCKET] = memory["powersgd.right"].clone().to(device)
