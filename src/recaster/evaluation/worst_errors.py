"""Which held-out rows a classifier answered worst, and what people are shown of them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recaster.core.files import write_bytes
from recaster.evaluation.metrics import TOLD

_PAGE = """<!doctype html><meta charset="utf-8"><title>Worst errors</title>
<style>
body {{ font: 15px sans-serif; max-width: 60em; margin: 2em auto }}
td {{ padding: .3em .6em; vertical-align: top }}
span {{ border-radius: 3px; padding: 0 1px }}</style>
<h1>Worst errors</h1>
<p>The held-out texts whose right answer was given the least probability. Red tokens speak for the answer
that was given, blue ones against it (integrated gradients).</p>
<table><tr><th>truth</th><th>answer</th><th>text</th></tr>
{rows}
</table>
"""


def find_worst(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], *, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the wrongly answered rows, the one first whose right answer had the least probability.

    Returns:
        They, and of each the class that was wrongly told; of several labels the one that is most wrong.
    """
    if targets.ndim == 2:
        right = np.where(targets > 0, probabilities, 1 - probabilities)
        wrong = np.flatnonzero(((probabilities >= TOLD) != (targets > 0)).any(1))
        given = right[wrong].prod(1)
        classes = right.argmin(1)
    else:
        classes = probabilities.argmax(1)
        wrong = np.flatnonzero(classes != targets)
        given = probabilities[wrong, targets[wrong]]
    worst = wrong[np.argsort(given, kind="stable")][:most]
    return worst, classes[worst]


def compare(probabilities: NDArray[np.float64], target: NDArray[np.int64], labels: Sequence[str]) -> str:
    """What a row is, and what is told of it; of several labels the names alone."""
    truth, answer = name_both(probabilities, target, labels)
    return f"{truth} /\n{answer}"


def name_both(
    probabilities: NDArray[np.float64], target: NDArray[np.int64], labels: Sequence[str]
) -> tuple[str, str]:
    """The right answer and the given one, of one label with its probability."""
    if target.ndim:
        has, told = (np.flatnonzero(given).tolist() for given in (target, probabilities >= TOLD))
        truth, answer = (", ".join(labels[number] for number in given) or "none" for given in (has, told))
        return truth, answer
    guess = int(probabilities.argmax())
    return labels[int(target)], f"{labels[guess]} {probabilities[guess]:.2f}"


def write_texts(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A page of rows `{truth, answer, tokens: [[text, share of the strongest, -1..1]]}`."""
    lines = [
        f"<tr><td>{html.escape(row['truth'])}</td><td>{html.escape(row['answer'])}</td>"
        f"<td>{' '.join(_colour(*token) for token in row['tokens'])}</td></tr>"
        for row in rows
    ]
    write_bytes(path, _PAGE.format(rows="\n".join(lines)).encode())


def _colour(token: str, share: float) -> str:
    colour = "255, 60, 40" if share > 0 else "60, 110, 255"
    return f'<span style="background: rgba({colour}, {abs(share):.2f})">{html.escape(token)}</span>'
