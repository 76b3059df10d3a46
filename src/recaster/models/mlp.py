"""A multilayer perceptron of residual blocks over flattened inputs.

This file imports only torch: a copy of it can travel with an exported model as `modeling.py`.

    (batch, …) → flatten → linear → blocks x depth → linear → (batch, classes)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two linear layers, normalised before, with a residual around."""

    def __init__(self, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, 2 * hidden)
        self.down = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(batch, hidden)` to the same shape."""
        result: Tensor = hidden + self.dropout(self.down(F.relu(self.up(self.norm(hidden)))))
        return result


class Mlp(nn.Module):
    """A linear layer in, residual blocks, a linear layer out."""

    def __init__(self, *, features: int, classes: int, hidden: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Flatten(), nn.Linear(features, hidden))
        self.blocks = nn.ModuleList(Block(hidden=hidden, dropout=dropout) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `(batch, classes)` of `inputs` `(batch, …)` with `features` numbers a row."""
        hidden = self.embed(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.head(hidden)
        return logits

    def chain(self) -> list[str]:
        """The modules whose application one after the other is `forward`: a pipeline cuts between them."""
        return ["embed", *(f"blocks.{number}" for number in range(len(self.blocks))), "head"]

    def tensor_plan(self, ranks: int) -> dict[str, object]:  # noqa: ARG002 - any number can share a layer
        """How `ranks` ranks share each layer, as `parallelize_module` wants it."""
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

        return {"blocks.*.up": ColwiseParallel(), "blocks.*.down": RowwiseParallel()}


def build_model(*, features: int, classes: int, hidden: int, depth: int, dropout: float) -> nn.Module:
    """The network, with fresh weights from torch's present random state.

    Args:
        features: numbers in one input row.
        hidden: width of the residual stream.
        depth: number of blocks.
    """
    return Mlp(features=features, classes=classes, hidden=hidden, depth=depth, dropout=dropout)
