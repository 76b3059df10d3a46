"""Plots of one search, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recaster.search.study import COMPLETE, PRUNED, Trial


def plot_history(trials: Sequence[Trial], metric: str, *, lower_is_better: bool, path: Path) -> None:
    """Draw each trial's metric by its number, and the best so far."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for state, marker in ((COMPLETE, "o"), (PRUNED, "x")):
        chosen = [trial for trial in trials if trial.state == state and trial.metric is not None]
        axes.scatter(
            [t.number for t in chosen], [t.metric or 0.0 for t in chosen], marker=marker, label=state
        )
    complete = [trial for trial in trials if trial.state == COMPLETE and trial.metric is not None]
    better = min if lower_is_better else max
    best = [better(t.metric or 0.0 for t in complete[: end + 1]) for end in range(len(complete))]
    axes.step([t.number for t in complete], best, where="post", color="grey", label="best so far")
    axes.set(xlabel="trial", ylabel=metric.replace("_", " "), title="Search")
    axes.legend()
    figure.savefig(path, dpi=110)


def plot_importance(shares: Mapping[str, float], metric: str, path: Path) -> None:
    """Draw the share of each key in the metric's variance, largest on top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1 + 0.4 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    keys = sorted(shares, key=lambda key: shares[key])
    axes.barh(keys, [shares[key] for key in keys])
    axes.set(
        xlabel=f"share of the variance of {metric.replace('_', ' ')}", xlim=(0, 1), title="What mattered"
    )
    figure.savefig(path, dpi=110)
