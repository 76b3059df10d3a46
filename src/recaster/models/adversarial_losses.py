"""The two players' losses by name, and what validation says of a generator.

hinge            Lim and Ye 2017          discriminator: max(0, 1 - real) + max(0, 1 + generated)
non-saturating   Goodfellow et al. 2014   discriminator: softplus(-real) + softplus(generated)
wasserstein      Arjovsky et al. 2017     discriminator: generated - real
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from recaster.models.losses import LossSum

_DISTINCT = 0.25
"""A generated picture is one of its own when its nearest neighbour among the generated is at least this part
of the distance at which real pictures have theirs."""

_OF_DISCRIMINATOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": lambda real, generated: F.relu(1 - real) + F.relu(1 + generated),
    "non-saturating": lambda real, generated: F.softplus(-real) + F.softplus(generated),
    "wasserstein": lambda real, generated: generated - real,
}
_OF_GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": lambda logits: -logits,
    "non-saturating": lambda logits: F.softplus(-logits),
    "wasserstein": lambda logits: -logits,
}


def build_adversarial_loss(name: str) -> LossSum:
    """The loss of the part whose turn it is, told by the shape of `Adversarial`'s outputs."""

    def loss_sum(outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001 - nothing is foretold
        if outputs.shape[1] == 1:
            return _mean_places(_OF_GENERATOR[name](outputs[:, 0])).sum()
        real, generated, penalty = outputs.unbind(1)
        return _mean_places(_OF_DISCRIMINATOR[name](real, generated) + penalty).sum()

    return loss_sum


def _mean_places(losses: Tensor) -> Tensor:
    """`(rows,)` of `(rows,)`, or of `(rows, places)` where a discriminator judges each place of a picture."""
    return losses if losses.ndim == 1 else losses.mean(1)


def energy_distance_sum(outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    """Energy distance of the generated to the real pictures of a pass, times its rows.

    At least 0, and 0 only for the same pictures: 2 E|x - y| - E|x - x'| - E|y - y'| over all pairs, in root
    mean square pixels. Source: Szekely and Rizzo, "Energy statistics", 2013. It needs no network, and falls
    while a generator learns, which the losses of a game do not.

    Args:
        outputs: `(rows, 2, pixels)`, generated and real.
    """
    if not len(outputs):
        return outputs.sum()
    generated, real = outputs.double().unbind(1)
    scale = len(outputs) / outputs.shape[2] ** 0.5
    pairs = ((generated, real), (generated, generated), (real, real))
    across, one, other = (torch.cdist(*pair).mean() for pair in pairs)
    distance: Tensor = scale * (2 * across - one - other)
    return distance


def count_distinct(outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    """How many generated pictures of a pass are no near copy of another one, shape `()`.

    Few are when a generator has collapsed (compare the birthday test of Arora and Zhang 2018).
    """
    if len(outputs) < 2:
        return outputs.new_tensor(float(len(outputs)))
    nearest = [_nearest(pictures) for pictures in outputs.double().unbind(1)]
    distinct: Tensor = (nearest[0] >= _DISTINCT * nearest[1].median()).sum()
    return distinct


def _nearest(pictures: Tensor) -> Tensor:
    """The distance of each picture's nearest other one, `(rows,)`."""
    apart = torch.cdist(pictures, pictures)
    return apart.fill_diagonal_(torch.inf).amin(1)
