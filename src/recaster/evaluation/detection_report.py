"""What there is to see of a detector: precision and recall, kinds of errors, pictures with their boxes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.detection_metrics import (
    Found,
    Truth,
    match,
    overlap_table,
    precision_recall,
)
from recaster.evaluation.picture_grid import PictureGrid, Place

_COLUMNS, _ROWS = 3, 2
_SHOWN_SCORE = 0.3
"""Weaker detections are neither drawn nor counted as errors; average precision sees them all."""
_FOREGROUND, _BACKGROUND = 0.5, 0.1
"""Overlaps from which a detection has found a box, and under which it has seen none (Bolya et al. 2020)."""
ERRORS = ("right", "classification", "localization", "both", "duplicate", "background", "missed")
_COLOURS = ("tab:red", "tab:blue", "tab:orange", "tab:purple", "tab:cyan", "tab:pink", "tab:olive")
Load = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def report_detections(
    predictions: Found, targets: Truth, *, labels: list[str], load: Load, folder: Path
) -> dict[str, Any]:
    """Draw the plots into `folder`; return COCO's figures, those of each class, and the errors by kind.

    Args:
        load: from row numbers to pictures `(rows, height, width, channels)` in 0..1.
    """
    plot_precision_recall(predictions, targets, labels, folder / "precision_recall.png")
    plot_boxes(predictions, targets, labels=labels, load=load, path=folder / "detections.png")
    errors = count_errors(predictions, targets)
    plot_errors(errors, folder / "errors.png")
    height, width = load(np.arange(1)).shape[1:3]
    return {**measure_coco(predictions, targets, labels, (height, width)), "errors": errors}


def measure_coco(
    predictions: Found, targets: Truth, labels: list[str], size: tuple[int, int]
) -> dict[str, Any]:
    """COCO's figures by faster-coco-eval: `{"coco": {…}, "per_class": […]}`; null where there is no box.

    Sizes are of the pictures as the model sees them: small is under 32 x 32 pixels, large from 96 x 96 on.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truth, found = _to_coco(predictions, targets, labels, size)
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its tables
        data = COCO(truth)
        if not truth["annotations"] or not found:
            return {"coco": dict.fromkeys(names), "per_class": []}
        run = COCOeval_faster(data, data.loadRes(found), iouType="bbox", print_function=lambda *_: None)
        run.evaluate()
        run.accumulate()
        run.summarize()
    precision = run.eval["precision"][:, :, :, 0, -1]  # overlaps, recalls, classes
    table = [
        {
            "label": label,
            "boxes": int((targets[:, :, 0] == number).sum()),
            "AP": _mean(precision[:, :, number]),
            "AP50": _mean(precision[0, :, number]),
        }
        for number, label in enumerate(labels)
    ]
    stats = [float(value) for value in run.stats[: len(names)]]
    told = {name: value if value >= 0 else None for name, value in zip(names, stats, strict=True)}
    return {"coco": told, "per_class": table}


def _mean(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _to_coco(
    predictions: Found, targets: Truth, labels: list[str], size: tuple[int, int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    truth: dict[str, Any] = {
        "images": [{"id": row + 1, "height": size[0], "width": size[1]} for row in range(len(targets))],
        "categories": [{"id": number + 1, "name": label} for number, label in enumerate(labels)],
        "annotations": [],
        "info": {},
    }
    for row, place in np.argwhere(targets[:, :, 0] >= 0).tolist():
        number, left, top, right, bottom = (float(value) for value in targets[row, place])
        truth["annotations"].append(
            {
                "id": len(truth["annotations"]) + 1,
                "image_id": row + 1,
                "category_id": int(number) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
            }
        )
    found = []
    for row, place in np.argwhere(predictions[:, :, 4] >= 0).tolist():
        left, top, right, bottom, score, number = predictions[row, place].tolist()
        box = [left, top, right - left, bottom - top]
        found.append({"image_id": row + 1, "category_id": int(number) + 1, "bbox": box, "score": score})
    return truth, found


def count_errors(predictions: Found, targets: Truth) -> dict[str, int]:
    """Detections of a score of at least 0.3, and boxes that none has found, by the kinds of TIDE.

    Source: D. Bolya et al., "TIDE: a general toolbox for identifying object detection errors", ECCV 2020.
    """
    strong = np.where((predictions[:, :, 4] >= _SHOWN_SCORE)[:, :, None], predictions, -1.0)
    shared, counts = overlap_table(strong, targets), dict.fromkeys(ERRORS, 0)
    hits = match(strong, targets, (_FOREGROUND,))[:, :, 0]
    same = strong[:, :, 5][:, :, None] == targets[:, :, 0][:, None, :]
    own = np.where(same, shared, -1.0).max(2, initial=-1.0)
    other = np.where(same, -1.0, shared).max(2, initial=-1.0)
    for row, place in np.argwhere(strong[:, :, 4] >= 0).tolist():
        counts[_name_error(bool(hits[row, place]), float(own[row, place]), float(other[row, place]))] += 1
    counts["missed"] = int((targets[:, :, 0] >= 0).sum() - counts["right"])
    return counts


def _name_error(hit: bool, own: float, other: float) -> str:
    """Of one detection, by its largest overlap with a box of its own class and of another."""
    if hit:
        return "right"
    if own >= _FOREGROUND:
        return "duplicate"  # the box was taken by a better one
    if other >= _FOREGROUND:
        return "classification"
    if own >= _BACKGROUND:
        return "localization"
    return "both" if other >= _BACKGROUND else "background"


def plot_precision_recall(predictions: Found, targets: Truth, labels: list[str], path: Path) -> None:
    """A curve for each class, at an overlap of one half."""
    from matplotlib.figure import Figure

    hits = match(predictions, targets, (_FOREGROUND,))[:, :, 0]
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, label in enumerate(labels):
        boxes = int((targets[:, :, 0] == number).sum())
        own = (predictions[:, :, 5] == number) & (predictions[:, :, 4] >= 0)
        if boxes and own.any():
            order = np.argsort(-predictions[:, :, 4][own], kind="stable")
            precision, recall = precision_recall(hits[own][order], boxes)
            axes.plot(recall, precision, label=f"{label} ({boxes} boxes)")
    axes.set(
        xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="At an overlap of 0.5"
    )
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=110)


def plot_errors(errors: dict[str, int], path: Path) -> None:
    """Bars of the errors by kind."""
    from matplotlib.figure import Figure

    kinds = ERRORS[1:]
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(kinds, [errors[kind] for kind in kinds], color="tab:blue")
    axes.bar_label(bars)
    axes.invert_yaxis()
    axes.set(
        xlabel="count", title=f"Errors beside {errors['right']} right detections (score from {_SHOWN_SCORE})"
    )
    figure.savefig(path, dpi=110)


def plot_boxes(predictions: Found, targets: Truth, *, labels: list[str], load: Load, path: Path) -> None:
    """The first pictures with what there is (dashed) and what was found, each label in its colour."""
    rows = np.arange(min(len(targets), _COLUMNS * _ROWS))
    grid = PictureGrid(
        columns=_COLUMNS,
        rows=_ROWS,
        cell=(4, 3.2),
        lines=0,
        title="Found (solid, with scores) and labelled (dashed)",
    )
    for row, picture in zip(rows.tolist(), load(rows), strict=True):
        place = grid.add(picture)
        for number, *sides in targets[row][targets[row, :, 0] >= 0].tolist():
            _draw(grid.axes, place, sides, colour=_COLOURS[int(number) % len(_COLOURS)], style="--", text="")
        strong = predictions[row][predictions[row, :, 4] >= _SHOWN_SCORE]
        for *sides, score, number in strong.tolist():
            text = f"{labels[int(number)]} {score:.2f}"
            _draw(grid.axes, place, sides, colour=_COLOURS[int(number) % len(_COLOURS)], style="-", text=text)
    grid.save(path, dpi=90)


def _draw(axes: Any, place: Place, sides: list[float], *, colour: str, style: str, text: str) -> None:
    from matplotlib.patches import Rectangle

    left, right = (place.left + place.scale * sides[side] for side in (0, 2))
    top, bottom = (place.top + place.scale * sides[side] for side in (1, 3))
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, color=colour, linestyle=style)
    )
    if text:
        axes.text(left, top - place.scale, text, color=colour, fontsize=7, clip_on=True)
