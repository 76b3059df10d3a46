"""What people look at after an evaluation of faces: curves, retrieved faces, groups, and pixels beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.data.shards import Shard
from recaster.evaluation.face_metrics import FACE_METRICS, Embeddings, People, arrange, roc_auc
from recaster.evaluation.face_plots import plot_retrieved, plot_roc, plot_scores
from recaster.evaluation.metrics import measure, paired_difference
from recaster.recipe.evaluation import EvaluateSection

_OF_BASELINE = [name for name in FACE_METRICS if not name.endswith("accept_rate")]
_LEAST_PEOPLE = 2


def report_faces(
    predictions: Embeddings,
    targets: People,
    shard: Shard,
    groups: list[str],
    *,
    section: EvaluateSection,
    folder: Path,
) -> dict[str, Any]:
    """Write `roc.png`, `scores.png` and `retrieved.png`; return baseline and slices.

    Args:
        shard: the split that the predictions are of.
        groups: of each of its pictures, empty where no group is named.
    """
    pixels, people = arrange(_to_coordinates(shard), shard.labels, 0.0)
    baseline = measure(pixels, people, {name: FACE_METRICS[name] for name in _OF_BASELINE}, section)
    point, low, high = paired_difference(predictions, pixels, targets, roc_auc, section)
    plot_roc({"model": predictions, "pixels": pixels}, targets, section, folder / "roc.png")
    plot_scores(predictions, targets, folder / "scores.png")
    plot_retrieved(predictions, targets, shard, folder / "retrieved.png")
    return {
        "baseline": {
            "what": "nearest pixels, on the same pairs",
            "metrics": baseline,
            "roc_auc_gained": {"value": point, "low": low, "high": high},
        },
        "counts": {
            "people": len(targets),
            "pictures": len(shard.labels),
            "pairs": len(shard.labels) * (len(shard.labels) - 1) // 2,
        },
        "slices": _slice(predictions, targets, shard, groups),
    }


def _to_coordinates(shard: Shard) -> NDArray[np.float64]:
    """Pictures in as few numbers as keep all their distances: `(pictures, at most pictures)`."""
    flat = shard.scaled(slice(None)).reshape(len(shard.labels), -1).astype(np.float64)
    if flat.shape[0] >= flat.shape[1]:
        return flat
    triangle: NDArray[np.float64] = np.linalg.qr(flat.T, mode="r")  # type: ignore[assignment] # by its mode
    return np.ascontiguousarray(triangle.T)


def _slice(predictions: Embeddings, targets: People, shard: Shard, groups: list[str]) -> list[dict[str, Any]]:
    """A row a group, by the group of each person's first picture: pairs within the group alone."""
    of_person = {
        person: groups[int(np.flatnonzero(shard.labels == person)[0])] for person in targets.tolist()
    }
    rows = []
    for group in sorted(set(of_person.values()) - {""}):
        own = np.array([of_person[person] == group for person in targets.tolist()])
        row: dict[str, Any] = {"group": group, "people": int(own.sum())}
        if own.sum() >= _LEAST_PEOPLE:
            row |= {
                name: function(predictions[own], targets[own])
                for name, function in FACE_METRICS.items()
                if name in {"roc_auc", "true_accept_rate", "false_accept_rate", "rank1"}
            }
        rows.append(row)
    return rows
