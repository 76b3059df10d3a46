"""The recipe's `communication` section, as one scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from recaster.distributed.communication.local import DiLoCo, LocalSgd
from recaster.distributed.communication.powersgd import PowerSGD
from recaster.distributed.communication.protocol import AllReduce, Communication
from recaster.distributed.communication.rounded import Rounded
from recaster.distributed.communication.server import SynchronousServer
from recaster.distributed.communication.stale import StaleServer
from recaster.distributed.communication.topk import TopK


def build_scheme(
    scheme: str, section: Mapping[str, Any], *, group: dist.ProcessGroup, last_step: int
) -> Communication:
    """The scheme named `scheme` with the options of the recipe's `communication` section.

    All ranks of `group` must call it together.

    Args:
        last_step: after it, schemes in which ranks differ let them agree.
    """
    server = section["parameter_server"]
    if scheme == "parameter-server" and server["staleness"] is not None:
        return StaleServer(group, **server, last_step=last_step)
    makers: dict[str, Callable[[], Communication]] = {
        "allreduce": AllReduce,
        "fp16": lambda: Rounded(group, torch.float16),
        "bf16": lambda: Rounded(group, torch.bfloat16),
        "powersgd": lambda: PowerSGD(group, **section["powersgd"]),
        "topk": lambda: TopK(group, **section["topk"]),
        "local-sgd": lambda: LocalSgd(group, **section["local_sgd"], last_step=last_step),
        "diloco": lambda: DiLoCo(group, **section["diloco"], last_step=last_step),
        "parameter-server": lambda: SynchronousServer(group, placement=server["placement"]),
    }
    return makers[scheme]()
