"""The loss of a detector: which points answer for which box, how well they know its class, and its sides.

Points are given to boxes by how well they already do there (task alignment, Feng et al. 2021); classes have
the focal loss with the alignment as a soft target (Li et al. 2020), boxes the generalized IoU (Rezatofighi
et al. 2019). Targets are `(rows, boxes, 5)`: class number, left, top, right, bottom in pixels; -1 fills up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recaster.models.nms import box_areas, pair_iou

_POINTS = 10
"""That may answer for a box; the summed loss is divided by it, so that a box weighs about one."""
_SCORE_POWER, _IOU_POWER = 1.0, 6.0
"""Of the alignment, as in the paper."""
_BOX_WEIGHT = 2.0
_COLUMNS = 7
HIT_IOU, HIT_SCORE = 0.5, 0.3
"""From which on a box counts as found while training goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What each point should say."""

    boxes: Tensor
    """Number of the box that the point answers for, `(rows, points)`; any where its share is 0."""
    shares: Tensor
    """How much it is that box's, 0..1, `(rows, points)`."""


def detection_loss(seen: Tensor, targets: Tensor, *, gamma: float) -> Tensor:
    """Summed over rows, shape `()`; divided by the number of boxes it is the loss of a box.

    Args:
        seen: `(rows, points, 7 + classes)`, see `models.detector.Detector.forward`.
        gamma: of the focal loss.
    """
    seen = seen.float()
    points, boxes, logits = seen[:, :, :3], seen[:, :, 3:_COLUMNS], seen[:, :, _COLUMNS:]
    given = assign_points(points, boxes.detach(), logits.detach().sigmoid(), targets)
    own = targets.gather(1, given.boxes[:, :, None].expand(-1, -1, 5))
    wanted = F.one_hot(own[:, :, 0].long().clamp(min=0), logits.shape[2]) * given.shares[:, :, None]
    gap = (wanted - logits.sigmoid()).abs() ** gamma
    classes = (F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * gap).sum()
    sides = (given.shares * (1 - aligned_giou(boxes, own[:, :, 1:]))).sum()
    return (classes + _BOX_WEIGHT * sides) / _POINTS


@torch.no_grad()
def assign_points(points: Tensor, boxes: Tensor, scores: Tensor, targets: Tensor) -> Assignment:
    """Give each box the points inside it whose score and overlap are best; a point has one box at most."""
    real = targets[:, :, 0] >= 0
    classes = targets[:, :, 0].long().clamp(min=0)
    overlap = pair_iou(targets[:, :, 1:], boxes)
    score = scores.transpose(1, 2).gather(1, classes[:, :, None].expand(-1, -1, scores.shape[1]))
    x, y = points[:, None, :, 0], points[:, None, :, 1]
    left, top, right, bottom = (side[:, :, None] for side in targets[:, :, 1:].unbind(2))
    inside = (x > left) & (x < right) & (y > top) & (y < bottom) & real[:, :, None]
    # A box with no point inside has the nearest one, or nothing would ever learn it.
    away = (x - (left + right) / 2) ** 2 + (y - (top + bottom) / 2) ** 2
    nearest = F.one_hot(away.argmin(2), away.shape[2]).bool() & real[:, :, None]
    inside |= nearest & ~inside.any(2, keepdim=True)
    # The small term gives points an order while nothing overlaps yet.
    aligned = (score**_SCORE_POWER * overlap**_IOU_POWER + 1e-9 / (1 + away)) * inside
    best = aligned.topk(min(_POINTS, aligned.shape[2]), dim=2)
    chosen = torch.zeros_like(inside).scatter(2, best.indices, best.values > 0)
    aligned = aligned * chosen
    # A point that several boxes want is its of the largest overlap.
    contest = torch.where(chosen, overlap + 1e-6, torch.zeros_like(overlap))
    owner = contest.argmax(1)
    mine = F.one_hot(owner, targets.shape[1]).transpose(1, 2).bool() & chosen
    aligned, overlap = aligned * mine, overlap * mine
    strongest = aligned.amax(2, keepdim=True).clamp(min=1e-12)
    shares = aligned / strongest * overlap.amax(2, keepdim=True).clamp(min=0.1)
    return Assignment(boxes=owner, shares=(shares * mine).sum(1))


def aligned_giou(one: Tensor, other: Tensor) -> Tensor:
    """Generalized IoU of boxes `(…, 4)` one by one, -1..1."""
    top_left = torch.maximum(one[..., :2], other[..., :2])
    bottom_right = torch.minimum(one[..., 2:], other[..., 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(-1)
    union = (box_areas(one) + box_areas(other) - shared).clamp(min=1e-9)
    corners = torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:])
    around = (corners[1] - corners[0]).clamp(min=0).prod(-1).clamp(min=1e-9)
    return shared / union - (around - union) / around


@torch.no_grad()
def count_found(seen: Tensor, targets: Tensor) -> Tensor:
    """How many boxes some point of their class finds, at an overlap of one half and a score of 0.3."""
    scores = seen[:, :, _COLUMNS:].float().sigmoid()
    score, classes = scores.max(2)
    overlap = pair_iou(targets[:, :, 1:], seen[:, :, 3:_COLUMNS].float())
    right = (classes[:, None, :] == targets[:, :, :1]) & (score[:, None, :] >= HIT_SCORE)
    return ((overlap >= HIT_IOU) & right).any(2).sum()
