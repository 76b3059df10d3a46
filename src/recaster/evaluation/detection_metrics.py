"""Average precision of detections, as COCO measures it, in arrays: quick enough to be resampled.

predictions (pictures, most, 6)  left, top, right, bottom, score, class; the best first; -1 fills up
targets     (pictures, boxes, 5) class, left, top, right, bottom; -1 fills up
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Found = NDArray[np.float64]
Truth = NDArray[Any]
COCO_OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).tolist())
_RECALLS = np.linspace(0, 1, 101)


def ap50(predictions: Found, targets: Truth) -> float:
    """Mean over classes of average precision at an overlap of one half; 0 where there is no box at all."""
    return _mean(average_precisions(predictions, targets, (0.5,)))


def mean_average_precision(predictions: Found, targets: Truth) -> float:
    """The same, mean also over overlaps from 0.5 to 0.95 (Lin et al. 2014, the measure of COCO)."""
    return _mean(average_precisions(predictions, targets, COCO_OVERLAPS))


DETECTION_METRICS = {"ap50": ap50, "mean_average_precision": mean_average_precision}


def _mean(table: Mapping[int, NDArray[np.float64]]) -> float:
    return float(np.mean([value.mean() for value in table.values()])) if table else 0.0


def average_precisions(
    predictions: Found, targets: Truth, overlaps: Sequence[float]
) -> dict[int, NDArray[np.float64]]:
    """Of each class that has a box, by class number: `(overlaps,)`, interpolated at 101 recalls."""
    hits = match(predictions, targets, overlaps)
    scores, classes = predictions[:, :, 4], predictions[:, :, 5]
    table = {}
    for number in np.unique(targets[:, :, 0][targets[:, :, 0] >= 0]).astype(int).tolist():
        own = (classes == number) & (scores >= 0)
        order = np.argsort(-scores[own], kind="stable")
        boxes = int((targets[:, :, 0] == number).sum())
        table[number] = np.array([_area(hit[own][order], boxes) for hit in np.moveaxis(hits, 2, 0)])
    return table


def precision_recall(hits: NDArray[np.bool_], boxes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall after each detection, the best first.

    Args:
        hits: `(detections,)`, by falling score.
        boxes: there are to be found.
    """
    right = np.cumsum(hits)
    return right / np.arange(1, len(hits) + 1), right / boxes


def _area(hits: NDArray[np.bool_], boxes: int) -> float:
    if not len(hits):
        return 0.0
    precision, recall = precision_recall(hits, boxes)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(place, len(precision))].mean())


def match(predictions: Found, targets: Truth, overlaps: Sequence[float]) -> NDArray[np.bool_]:
    """Which detections find a box: `(pictures, most, overlaps)`.

    The best detection chooses first; each takes the box of its class that it overlaps most, of those left.
    """
    shared = overlap_table(predictions, targets)
    shared[predictions[:, :, 5][:, :, None] != targets[:, :, 0][:, None, :]] = -1
    bars = np.minimum(np.asarray(overlaps), 1 - 1e-10)[None, :, None]
    pictures, most, boxes = shared.shape
    taken = np.zeros((pictures, bars.shape[1], boxes), dtype=bool)
    hits = np.zeros((pictures, most, bars.shape[1]), dtype=bool)
    used = int((predictions[:, :, 4] >= 0).sum(1).max(initial=0))
    at = np.ogrid[:pictures, : bars.shape[1]]
    for rank in range(used):
        free = np.where(taken, -1.0, shared[:, rank][:, None, :])
        # Of equal overlaps the last box, as COCO's own code does.
        best = boxes - 1 - free[:, :, ::-1].argmax(2)
        hit = np.take_along_axis(free, best[:, :, None], 2)[:, :, 0] >= bars[:, :, 0]
        hits[:, rank] = hit
        taken[at[0], at[1], best] |= hit
    return hits


def overlap_table(predictions: Found, targets: Truth) -> NDArray[np.float64]:
    """Intersection over union `(pictures, most, boxes)`; -1 where one of both only fills up."""
    one, other = predictions[:, :, None, :4], targets[:, None, :, 1:].astype(np.float64)
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(side[..., 2:] - side[..., :2], 0, None).prod(-1) for side in (one, other)]
    table: NDArray[np.float64] = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
    table[(predictions[:, :, 4] < 0)[:, :, None] | (targets[:, :, 0] < 0)[:, None, :]] = -1
    return table
