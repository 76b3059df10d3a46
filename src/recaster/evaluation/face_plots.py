"""Plots of an evaluation of faces, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recaster.core.seeds import derive_seed
from recaster.data.shards import Shard
from recaster.evaluation.face_metrics import Embeddings, People, embeddings_of, score_pairs
from recaster.evaluation.picture_grid import PictureGrid
from recaster.recipe.evaluation import EvaluateSection

_DRAWS = 200
_GRID = np.concatenate([[0.0], np.logspace(-4, 0, 200)])
_ASKED, _FOUND = 6, 5


def plot_roc(
    answers: Mapping[str, Embeddings], targets: People, section: EvaluateSection, path: Path
) -> None:
    """Draw true over false accepts with the interval of resampled people."""
    from matplotlib.figure import Figure

    random = np.random.default_rng(derive_seed(section.seed, "roc"))
    draws = [random.integers(0, len(targets), len(targets)) for _ in range(_DRAWS)]
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, predictions in answers.items():
        (line,) = axes.plot(_GRID, _curve(predictions, targets), label=name)
        curves = [
            _curve(predictions[rows], targets[rows]) for rows in draws if len(set(targets[rows].tolist())) > 1
        ]
        edges = [(1 - section.confidence) / 2, (1 + section.confidence) / 2]
        low, high = np.nanquantile(curves, edges, axis=0)
        axes.fill_between(_GRID, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(
        xscale="log",
        xlim=(1e-4, 1),
        ylim=(0, 1.02),
        xlabel="false accepts (share of pairs of two people)",
        ylabel="true accepts (share of pairs of one person)",
        title=f"{len(targets)} people who were never seen",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def _curve(predictions: Embeddings, targets: People) -> NDArray[np.float64]:
    pairs = score_pairs(predictions, targets)
    allowed = np.floor(_GRID * len(pairs.others)).astype(int)
    descending = np.append(pairs.others[::-1], -np.inf)
    cuts = descending[allowed]
    refused = np.searchsorted(pairs.same, cuts, side="right")
    accepted: NDArray[np.float64] = 1 - refused / max(1, len(pairs.same))
    return accepted


def plot_scores(predictions: Embeddings, targets: People, path: Path) -> None:
    """Draw how pairs of one person and of two score, and where the threshold is."""
    from matplotlib.figure import Figure

    pairs = score_pairs(predictions, targets)
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    axes = figure.add_subplot()
    bins = np.linspace(min(pairs.same.min(), pairs.others.min()), 1, 60).tolist()
    for name, values in (("two people", pairs.others), ("one person", pairs.same)):
        axes.hist(values, bins=bins, density=True, alpha=0.6, label=f"{name} ({len(values)} pairs)")
    axes.axvline(pairs.threshold, color="black", linestyle="--", label=f"threshold {pairs.threshold:.3f}")
    axes.set(xlabel="score (cosine)", ylabel="density", title="Scores of held-out pairs")
    axes.legend()
    figure.savefig(path, dpi=110)


def plot_retrieved(predictions: Embeddings, targets: People, shard: Shard, path: Path) -> None:
    """Draw pictures of several people and the nearest others, with their scores; wrong ones in red."""
    rows = np.concatenate([np.flatnonzero(shard.labels == person) for person in targets.tolist()])
    vectors = embeddings_of(predictions)
    asked = np.unique(np.linspace(0, len(rows) - 1, _ASKED).astype(int)).tolist()
    shown = min(_FOUND, len(rows) - 1)
    grid = PictureGrid(columns=1 + shown, rows=len(asked), cell=(1.4, 1.7))
    for number in asked:
        scores = vectors @ vectors[number]
        scores[number] = -np.inf
        nearest = np.argsort(-scores, kind="stable")[:shown].tolist()
        for found in [number, *nearest]:
            own = shard.labels[rows[found]] == shard.labels[rows[number]]
            grid.add(
                shard.scaled(rows[found : found + 1])[0].transpose(1, 2, 0),
                "asked for" if found == number else f"{scores[found]:.2f}",
                colour="black" if own else "red",
            )
    grid.save(path)
