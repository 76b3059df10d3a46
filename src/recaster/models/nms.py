"""Boxes against boxes, and class-wise non-maximum suppression.

This file imports only torch: it travels with exported models as a part of their `modeling.py`.
Boxes are `(…, 4)`: left, top, right, bottom, in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def box_areas(boxes: Tensor) -> Tensor:
    """`(…,)` square pixels; 0 for a box that is turned inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def pair_iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of each box of `one` `(…, n, 4)` with each of `other` `(…, m, 4)`."""
    top_left = torch.maximum(one[..., :, None, :2], other[..., None, :, :2])
    bottom_right = torch.minimum(one[..., :, None, 2:], other[..., None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(-1)
    union = box_areas(one)[..., :, None] + box_areas(other)[..., None, :] - shared
    return shared / union.clamp(min=1e-9)


def suppress(boxes: Tensor, scores: Tensor, classes: Tensor, *, overlap: float) -> Tensor:
    """Which boxes stay when each takes away weaker ones of its class that overlap it by more than `overlap`.

    Greedy, and without a loop over boxes: a box stays when no box that stays takes it away, which is a
    fixed point that is reached after as many rounds as the longest chain of takings-away.

    Args:
        boxes: `(rows, n, 4)`.
        scores: `(rows, n)`; of equal ones the first is the stronger.
        classes: `(rows, n)`.

    Returns:
        `(rows, n)` of bool.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    sorted_boxes = boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
    sorted_classes = classes.gather(1, order)
    takes = pair_iou(sorted_boxes, sorted_boxes) > overlap
    takes &= sorted_classes[:, :, None] == sorted_classes[:, None, :]
    takes = takes.triu(1)  # only weaker ones
    stays = torch.ones_like(order, dtype=torch.bool)
    while True:
        again = ~(takes & stays[:, :, None]).any(1)
        if torch.equal(again, stays):
            break
        stays = again
    return torch.zeros_like(stays).scatter(1, order, stays)


def pick_detections(
    boxes: Tensor, scores: Tensor, *, overlap: float, least_score: float, most: int, candidates: int
) -> Tensor:
    """The best boxes of each picture, the best first.

    Args:
        boxes: `(rows, points, 4)`.
        scores: `(rows, points, classes)`, 0..1.
        overlap: see `suppress`.
        least_score: weaker ones are none.
        most: boxes of a picture.
        candidates: that are looked at in a picture.

    Returns:
        `(rows, most, 6)`: box, score, class number; rows that are not needed are -1.
    """
    flat = scores.flatten(1)
    best, place = flat.topk(min(candidates, flat.shape[1]), dim=1)
    points, classes = place // scores.shape[2], place % scores.shape[2]
    chosen = boxes.gather(1, points[:, :, None].expand(-1, -1, 4))
    kept = suppress(chosen, best, classes, overlap=overlap) & (best >= least_score)
    found = torch.cat([chosen, best[:, :, None], classes[:, :, None].to(best.dtype)], 2)
    found = torch.where(kept[:, :, None], found, -torch.ones_like(found))
    order = found[:, :, 4].argsort(dim=1, descending=True, stable=True)[:, :most]
    picked = found.gather(1, order[:, :, None].expand(-1, -1, 6))
    short = most - picked.shape[1]
    return torch.nn.functional.pad(picked, (0, 0, 0, short), value=-1.0) if short > 0 else picked
