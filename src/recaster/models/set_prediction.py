"""The loss of networks that answer with a set of boxes: each box has one query, each query at most one box.

Queries are given to boxes by the Hungarian method (Carion et al. 2020, DETR). Networks with a class for
"nothing" have the cross-entropy over all queries, those without it the varifocal loss (Zhang et al. 2021);
matched boxes have their distance (L1, in shares of the picture) and the generalized IoU. The weights are
those of the papers, which transformers has too. Targets are `(rows, boxes, 5)`: class number, left, top,
right, bottom in pixels; -1 fills up.

    seen (rows, layers * queries, 7 + classes)   picture's width, height, MARK, box in pixels, logits
    MARK = -1 - 2 * layer - (1 without a class for nothing); layer 0 is the answer, others help in training
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from recaster.models.detection_loss import HIT_IOU, HIT_SCORE, aligned_giou
from recaster.models.nms import box_areas, pair_iou

_COLUMNS = 7
_BOX_COST, _GIOU_COST = 5.0, 2.0
_SOFTMAX_CLASS_COST, _SIGMOID_CLASS_COST = 1.0, 2.0
_BOX_WEIGHT, _GIOU_WEIGHT = 5.0, 2.0
_NOTHING_WEIGHT = 0.1
"""Of a query that has no box (Carion et al. 2020)."""
_MATCH_ALPHA, _LOSS_ALPHA, _GAMMA = 0.25, 0.75, 2.0
"""Of RT-DETR (Zhao et al. 2024): the focal cost of matching, and the varifocal loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswers:
    """What the queries of one layer say of each picture."""

    boxes: Tensor
    """`(rows, queries, 4)`, pixels."""
    logits: Tensor
    """`(rows, queries, classes)`; where there is a class for nothing it is the last."""
    size: Tensor
    """`(4,)`: the picture's width, height, width, height."""
    sigmoid: bool
    """No class for nothing: each class has a probability of its own."""

    def scores(self) -> Tensor:
        """`(rows, queries, classes)` of the real classes, 0..1."""
        return self.logits.sigmoid() if self.sigmoid else self.logits.softmax(2)[:, :, :-1]


def pack_answers(
    boxes: Tensor, logits: Tensor, *, size: tuple[int, int], layer: int, sigmoid: bool
) -> Tensor:
    """One layer's answers in the form of the module's docstring.

    Args:
        boxes: `(rows, queries, 4)`: centre x and y, width, height, in shares of the picture.
        logits: `(rows, queries, classes)`.
        size: the picture's height and width.
    """
    height, width = size
    boxes = boxes.float()
    middle, half = boxes[:, :, :2], boxes[:, :, 2:] / 2
    corners = torch.cat([middle - half, middle + half], 2) * boxes.new_tensor([width, height, width, height])
    told = boxes.new_tensor([width, height, -1 - 2 * layer - int(sigmoid)])
    return torch.cat([told.expand(*boxes.shape[:2], 3), corners, logits.float()], 2)


def unpack_answers(seen: Tensor) -> list[QueryAnswers]:
    """The layers of `seen`, the answer first."""
    marks = (-1 - seen[0, :, 2]).long()
    sigmoid = bool(marks[0] % 2)
    size = seen[0, 0, :2].repeat(2)
    return [
        QueryAnswers(boxes=part[:, :, 3:_COLUMNS], logits=part[:, :, _COLUMNS:], size=size, sigmoid=sigmoid)
        for part in seen.float().chunk(int(marks.max()) // 2 + 1, 1)
    ]


def set_prediction_loss(seen: Tensor, targets: Tensor) -> Tensor:
    """Summed over rows and layers, shape `()`; divided by the number of boxes it is the loss of a box.

    A picture's cross-entropy is the weighted mean over its queries, counted once for each of its boxes (once
    where there are none), so that the sum does not depend on which pictures are in one batch.

    Args:
        seen: as in the module's docstring.
        targets: `(rows, boxes, 5)`.
    """
    return torch.stack([_layer_loss(answers, targets) for answers in unpack_answers(seen)]).sum()


def _layer_loss(answers: QueryAnswers, targets: Tensor) -> Tensor:
    rows, queries, boxes = match_queries(answers, targets)
    own, found = targets[rows, boxes], answers.boxes[rows, queries]
    classes = own[:, 0].long()
    away = ((_to_shares(found, answers.size) - _to_shares(own[:, 1:], answers.size)).abs()).sum()
    sides = (1 - aligned_giou(found, own[:, 1:])).sum()
    if answers.sigmoid:
        overlap = _aligned_iou(found.detach(), own[:, 1:])
        known = _varifocal(answers.logits, rows, queries, classes, overlap)
    else:
        known = _cross_entropy(answers.logits, rows, queries, classes, targets)
    return known + _BOX_WEIGHT * away + _GIOU_WEIGHT * sides


@torch.no_grad()
def match_queries(answers: QueryAnswers, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row, query and box of each pair, such that all pairs of a picture together cost least."""
    from scipy.optimize import linear_sum_assignment

    wanted = _to_shares(targets[:, :, 1:], answers.size)
    cost = _BOX_COST * torch.cdist(_to_shares(answers.boxes, answers.size), wanted, p=1)
    near = aligned_giou(answers.boxes[:, :, None], targets[:, None, :, 1:])
    cost = cost - _GIOU_COST * near + _class_cost(answers, targets[:, :, 0].long().clamp(min=0))
    costs = torch.nan_to_num(cost, nan=1e9, posinf=1e9, neginf=1e9).cpu().numpy()
    real = (targets[:, :, 0] >= 0).cpu().numpy()
    pairs = []
    for row, (own, there) in enumerate(zip(costs, real, strict=True)):
        places = torch.from_numpy(there.nonzero()[0])
        queries, boxes = (torch.from_numpy(one) for one in linear_sum_assignment(own[:, there]))
        pairs.append(torch.stack([torch.full_like(queries, row), queries, places[boxes]]))
    told = torch.cat(pairs, 1).to(targets.device)
    return told[0], told[1], told[2]


def _class_cost(answers: QueryAnswers, classes: Tensor) -> Tensor:
    """`(rows, queries, boxes)`."""
    scores = answers.scores().gather(2, classes[:, None].expand(-1, answers.logits.shape[1], -1))
    if not answers.sigmoid:
        return -_SOFTMAX_CLASS_COST * scores
    absent = (1 - _MATCH_ALPHA) * scores**_GAMMA * -(1 - scores + 1e-8).log()
    there = _MATCH_ALPHA * (1 - scores) ** _GAMMA * -(scores + 1e-8).log()
    return _SIGMOID_CLASS_COST * (there - absent)


def _cross_entropy(logits: Tensor, rows: Tensor, queries: Tensor, classes: Tensor, targets: Tensor) -> Tensor:
    nothing = logits.shape[2] - 1
    wanted = torch.full(logits.shape[:2], nothing, device=logits.device)
    wanted[rows, queries] = classes
    weights = torch.where(wanted == nothing, _NOTHING_WEIGHT, 1.0)
    every = F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none") * weights
    boxes = (targets[:, :, 0] >= 0).sum(1).clamp(min=1)
    return (every.sum(1) / weights.sum(1) * boxes).sum()


def _varifocal(logits: Tensor, rows: Tensor, queries: Tensor, classes: Tensor, overlap: Tensor) -> Tensor:
    wanted, own = torch.zeros_like(logits), torch.zeros_like(logits)
    own[rows, queries, classes] = 1
    wanted[rows, queries, classes] = overlap
    weights = _LOSS_ALPHA * logits.detach().sigmoid() ** _GAMMA * (1 - own) + wanted
    return F.binary_cross_entropy_with_logits(logits, wanted, weight=weights, reduction="sum")


def _to_shares(boxes: Tensor, size: Tensor) -> Tensor:
    """Centre, width and height in shares of the picture, of sides in pixels."""
    sides = boxes / size
    return torch.cat([(sides[..., :2] + sides[..., 2:]) / 2, sides[..., 2:] - sides[..., :2]], -1)


def _aligned_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes `(n, 4)` one by one."""
    shared = torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])
    area = shared.clamp(min=0).prod(1)
    return area / (box_areas(one) + box_areas(other) - area).clamp(min=1e-9)


@torch.no_grad()
def count_matched(seen: Tensor, targets: Tensor) -> Tensor:
    """How many boxes some query of their class finds, as `detection_loss.count_found` counts."""
    answers = unpack_answers(seen)[0]
    score, classes = answers.scores().max(2)
    overlap = pair_iou(targets[:, :, 1:], answers.boxes)
    right = (classes[:, None, :] == targets[:, :, :1]) & (score[:, None, :] >= HIT_SCORE)
    return ((overlap >= HIT_IOU) & right).any(2).sum()
