"""What there is to see of translations: sacrebleu's own figures, quality by length, attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.data.pair_shards import Pair
from recaster.evaluation.translation_metrics import Found, bleu, chrf, read_translations

_BOUNDS = (5, 10, 15, 20, 30)
"""Words of a source, up to which each group goes."""
_COLUMNS = 3


def report_translations(
    predictions: Found, targets: NDArray[np.int64], pairs: Sequence[Pair], folder: Path
) -> dict[str, Any]:
    """Draw quality by length into `folder`; return that, and each direction's figures.

    Args:
        pairs: of the rows, in their order.
    """
    lengths = np.array([len(pair.source.split()) for pair in pairs])
    by_length = _measure_groups(predictions, targets, np.digitize(lengths, _BOUNDS, right=True))
    plot_by_length(by_length, folder / "length.png")
    return {
        "sacrebleu": _measure_directions(read_translations(predictions), pairs),
        "by_length": by_length,
    }


def _measure_directions(written: Sequence[str], pairs: Sequence[Pair]) -> dict[str, Any]:
    """BLEU and chrF of each direction by sacrebleu itself, with its signatures."""
    from sacrebleu.metrics import BLEU, CHRF

    table = {}
    for direction in sorted({pair.direction for pair in pairs}):
        rows = [row for row, pair in enumerate(pairs) if pair.direction == direction]
        own, wanted = [written[row] for row in rows], [[pairs[row].target for row in rows]]
        found: dict[str, Any] = {"rows": len(rows)}
        for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
            found[name] = metric.corpus_score(own, wanted).score
            found[f"{name}_signature"] = str(metric.get_signature())
        table[direction] = found
    return table


def _measure_groups(
    predictions: Found, targets: NDArray[np.int64], groups: NDArray[np.int64]
) -> list[dict[str, Any]]:
    names = [f"{low + 1} to {high}" for low, high in zip((0, *_BOUNDS[:-1]), _BOUNDS, strict=True)]
    names.append(f"over {_BOUNDS[-1]}")
    return [
        {
            "words": names[group],
            "rows": int((groups == group).sum()),
            "bleu": bleu(predictions[groups == group], targets[groups == group]),
            "chrf": chrf(predictions[groups == group], targets[groups == group]),
        }
        for group in np.unique(groups).tolist()
    ]


def plot_by_length(groups: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of BLEU and chrF by the words of the source."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(groups))
    for shift, name in ((-0.2, "bleu"), (0.2, "chrf")):
        axes.bar(places + shift, [group[name] for group in groups], width=0.4, label=name)
    axes.set_xticks(places, [f"{group['words']}\n({group['rows']})" for group in groups])
    axes.set(xlabel="words of the source (texts)", ylim=(0, 100))
    axes.legend()
    figure.savefig(path, dpi=110)


def plot_attention(
    maps: Sequence[tuple[NDArray[np.float32], Sequence[str], Sequence[str]]], path: Path
) -> None:
    """Where the model looked in the source while it wrote each token of the translation.

    Args:
        maps: shares `(written, source)`, the tokens of the source and those that were written.
    """
    from matplotlib.figure import Figure

    rows = -(-len(maps) // _COLUMNS)
    figure = Figure(figsize=(5 * _COLUMNS, 4.5 * rows), layout="constrained")
    for place, (shares, source, written) in enumerate(maps):
        axes = figure.add_subplot(rows, _COLUMNS, place + 1)
        axes.imshow(shares, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(source)), [_plain(token) for token in source], rotation=90)
        axes.set_yticks(range(len(written)), [_plain(token) for token in written])
    figure.savefig(path, dpi=90)


def _plain(token: str) -> str:
    """A token as people read it; a dollar sign would begin a formula."""
    return token.replace("$", r"\$")
