"""Metrics on parts of the held-out records: a mean that looks well can hide a part that does not.

by       slice           rows   accuracy
length   1 to 9 tokens    110   0.92 (0.85 to 0.96)
group    forum             80   0.71 (0.60 to 0.80)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.evaluation.metrics import MetricFunction, measure
from recaster.recipe.evaluation import EvaluateSection

_PARTS = 4
_LEAST_ROWS = 5
"""Fewer tell nothing of a metric."""
_MOST_GROUPS = 50
"""Drawn and measured; a group a record is no slice."""
_MOST_DRAWN = 30


def cut_in_quarters(values: NDArray[Any], name: Callable[[Any, Any], str]) -> list[str]:
    """The slice of each of `values`, by quartiles; equal values are in one slice, so there may be fewer.

    Args:
        name: of a slice, from its smallest and largest value.
    """
    bounds = np.unique(np.quantile(values, [part / _PARTS for part in range(1, _PARTS)], method="lower"))
    places = np.searchsorted(bounds, values, side="left")
    names = {
        place: name(values[places == place].min(), values[places == place].max())
        for place in np.unique(places).tolist()
    }
    return [names[place] for place in places.tolist()]


def measure_slices(
    predictions: NDArray[np.float64],
    targets: NDArray[np.int64],
    slices: Mapping[str, Sequence[str]],
    functions: Mapping[str, MetricFunction],
    section: EvaluateSection,
) -> list[dict[str, Any]]:
    """A row a slice: `by`, `slice`, `rows`, and each metric as `metrics.measure` has it.

    Slices of fewer than 5 rows have no metrics. A division into one slice, or into more than 50, is left
    out: the first says what the whole says, and the second is none.

    Args:
        slices: divisions by their names; of each the slice of each row, an empty name for a row in none.
    """
    table = []
    for by, names in slices.items():
        own = np.array(names)
        found = sorted(set(names) - {""}, key=_order)
        if not len(found) + ("" in names) > 1 or len(found) > _MOST_GROUPS:
            continue
        for one in found:
            rows = np.flatnonzero(own == one)
            row: dict[str, Any] = {"by": by, "slice": one, "rows": len(rows)}
            if len(rows) >= _LEAST_ROWS:
                row |= measure(predictions[rows], targets[rows], functions, section)
            table.append(row)
    return table


def _order(name: str) -> tuple[float, str]:
    """By the number that a name begins with; names without one come first."""
    begins = re.match(r"-?\d+(\.\d+)?", name)
    return (float(begins[0]) if begins else -math.inf, name)


def plot_slices(
    table: Sequence[Mapping[str, Any]], metric: str, whole: Mapping[str, float], path: Path
) -> None:
    """Draw each slice's metric with its interval, and that of all rows as a line."""
    from matplotlib.figure import Figure

    rows = [row for row in table if metric in row][:_MOST_DRAWN]
    if not rows:
        return
    figure = Figure(figsize=(7, 1.2 + 0.32 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places, values = np.arange(len(rows)), np.array([row[metric]["value"] for row in rows])
    ends = np.array([[row[metric]["low"], row[metric]["high"]] for row in rows]).T
    axes.errorbar(values, places, xerr=np.abs(ends - values), fmt="o", capsize=3)
    axes.axvspan(whole["low"], whole["high"], color="grey", alpha=0.15)
    axes.axvline(whole["value"], color="grey", linestyle="--", label="all records")
    axes.set_yticks(places, [f"{row['by']}: {row['slice']} ({row['rows']:,})" for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel=metric.replace("_", " "), title="Slices of the held-out split")
    axes.legend(loc="best")
    figure.savefig(path, dpi=110)
