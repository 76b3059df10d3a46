"""What people look at after an evaluation of word vectors: each set, analogies, neighbours, a map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recaster.evaluation.word_metrics import Judged, by_set
from recaster.models.word_table import Lexicon

_NEAREST, _ON_MAP, _BLOCK = 8, 150, 512
_LEAST_FOR_TSNE = 20


def report_sets(predictions: NDArray[np.float64], targets: Judged, names: list[str]) -> list[dict[str, Any]]:
    """A row a set of pairs: its correlation, and how many of its pairs are known."""
    return [
        {"set": names[number], "spearman": None if np.isnan(value) else value, "known": known, "pairs": pairs}
        for number, value, known, pairs in by_set(predictions, targets)
    ]


def solve_analogies(lexicon: Lexicon, analogies: list[list[str]]) -> list[dict[str, Any]]:
    """A row a set of analogies: how many the nearest word to b - a + c answers.

    3CosAdd (Mikolov, Yih and Zweig 2013; named by Levy and Goldberg 2014). The three given
    words are no answer. Analogies with a word that has no vector are left out and counted.

    Args:
        analogies: set, a, b, c, d.
    """
    numbers = {word: number for number, word in enumerate(lexicon.words)}
    rows = []
    for name in sorted({one[0] for one in analogies}):
        own = [one[1:] for one in analogies if one[0] == name]
        known = np.array([[numbers[w] for w in one] for one in own if all(w in numbers for w in one)])
        hits = sum(
            _count_right(lexicon.units, known[start : start + _BLOCK])
            for start in range(0, len(known), _BLOCK)
        )
        accuracy = hits / len(known) if len(known) else None
        rows.append({"set": name, "accuracy": accuracy, "known": len(known), "analogies": len(own)})
    return rows


def _count_right(units: torch.Tensor, analogies: NDArray[np.int64]) -> int:
    asked = torch.from_numpy(analogies)
    first, second, third, wanted = (*units[asked].unbind(1)[:3], asked[:, 3])
    scores = (second - first + third) @ units.T
    scores.scatter_(1, asked[:, :3], -torch.inf)
    return int((scores.argmax(1) == wanted).sum())


def list_neighbours(lexicon: Lexicon, count: int) -> list[dict[str, Any]]:
    """Nearest words of `count` words from all over the vocabulary, frequent ones first."""
    places = np.unique(np.geomspace(1, len(lexicon.words), count + 1).astype(int) - 1)[:count]
    rows = []
    for word in (lexicon.words[place] for place in places.tolist()):
        vector, _ = lexicon.embed(word)
        near = lexicon.nearest(vector, _NEAREST, leave_out=[word])
        rows.append({"word": word, "nearest": [{"word": one, "cosine": value} for one, value in near]})
    return rows


def plot_map(lexicon: Lexicon, path: Path, *, seed: int) -> None:
    """Draw frequent words where t-SNE puts their vectors: near words together, distances between groups free.

    The hundred most frequent words say little of meaning and are left out where there are others.
    """
    from matplotlib.figure import Figure

    first = min(100, max(0, len(lexicon.words) - _ON_MAP))
    words = lexicon.words[first : first + _ON_MAP]
    places = _project(lexicon.units[first : first + len(words)].double().numpy(), seed=seed)
    figure = Figure(figsize=(9, 9), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(places[:, 0], places[:, 1], s=4)
    for word, (x, y) in zip(words, places.tolist(), strict=True):
        axes.annotate(word, (x, y), fontsize=7, xytext=(2, 2), textcoords="offset points")
    axes.set(title=f"{len(words)} words by their vectors", xticks=[], yticks=[])
    figure.savefig(path, dpi=110)


def _project(units: NDArray[np.float64], *, seed: int) -> NDArray[np.float64]:
    """`(words, 2)`: principal components, spread by t-SNE where there are enough words."""
    centred = units - units.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    components: NDArray[np.float64] = left[:, :2] * size[:2]
    if len(units) < _LEAST_FOR_TSNE or components.shape[1] < 2:
        return np.pad(components, ((0, 0), (0, 2 - components.shape[1])))
    from sklearn.manifold import TSNE

    perplexity = min(20.0, (len(units) - 1) / 3)
    tsne = TSNE(n_components=2, perplexity=perplexity, init="pca", metric="cosine", random_state=seed)
    spread: NDArray[np.float64] = tsne.fit_transform(units)
    return spread
