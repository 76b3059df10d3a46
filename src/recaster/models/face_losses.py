"""Losses that bring one person's embeddings together, summed over faces."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recaster.models.losses import LossSum

_EDGE = 1e-6
"""Cosines keep so far from 1, where the angle has no finite derivative."""


def build_face_loss(section: Mapping[str, Any], *, training: bool) -> LossSum:
    """The loss of a recipe's `train.loss` section.

    Args:
        training: by it the outputs are cosines to the people of the training split (`arcface`, `cosface`) or
            embeddings (`triplet`). In validation they are embeddings of people who were never seen, and the
            loss is the triplets' for all three.
    """
    name, distance = section["name"], section["distance"]
    if not training or name == "triplet":
        return partial(hardest_triplets, distance=distance)
    return partial({"arcface": arcface, "cosface": cosface}[name], distance=distance, scale=section["scale"])


def arcface(cosines: Tensor, targets: Tensor, *, distance: float, scale: float) -> Tensor:
    """Cross entropy of `scale` times cosines, the angle to the own person widened by `distance` radians.

    Args:
        cosines: `(rows, people)`.
        targets: `(rows,)`.

    Source: Deng et al. 2019, "ArcFace", equation 3; beyond pi - distance the cosine would rise again, and
    is lowered by a constant instead, as in its authors' code.
    """
    cosines = cosines.float()
    own = cosines.gather(1, targets[:, None]).clamp(-1 + _EDGE, 1 - _EDGE)
    margin = torch.tensor(distance)
    widened = own * margin.cos() - (1 - own.square()).sqrt() * margin.sin()
    far = own - margin * margin.sin()
    changed = torch.where(own > -margin.cos(), widened, far)
    return F.cross_entropy(scale * cosines.scatter(1, targets[:, None], changed), targets, reduction="sum")


def cosface(cosines: Tensor, targets: Tensor, *, distance: float, scale: float) -> Tensor:
    """Cross entropy of `scale` times cosines, the own person's lowered by `distance` (Wang et al. 2018)."""
    lowered = cosines.float() - distance * F.one_hot(targets, cosines.shape[1])
    return F.cross_entropy(scale * lowered, targets, reduction="sum")


def hardest_triplets(embeddings: Tensor, targets: Tensor, *, distance: float) -> Tensor:
    """By how much each row's farthest own picture is not nearer than the nearest other person by `distance`.

    Args:
        embeddings: `(rows, width)` of length 1.
        targets: `(rows,)`; rows without a partner, or without others, count 0.

    Source: Hermans et al. 2017, "In defense of the triplet loss", batch hard.
    """
    embeddings = embeddings.float()
    gaps = (2 - 2 * embeddings @ embeddings.T).clamp(min=1e-8).sqrt()
    same = targets[:, None] == targets[None]
    others = ~same
    partners = same & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    farthest = gaps.masked_fill(~partners, -torch.inf).amax(1)
    nearest = gaps.masked_fill(~others, torch.inf).amin(1)
    counts = partners.any(1) & others.any(1)
    return F.relu(farthest - nearest + distance)[counts].sum()


def nearest_is_own(embeddings: Tensor, targets: Tensor) -> Tensor:
    """How many rows of a pass have a picture of their own person nearest, shape `()`."""
    closeness = (embeddings @ embeddings.T).float()
    closeness.fill_diagonal_(-torch.inf)
    return (targets[closeness.argmax(1)] == targets).sum()
