"""What there is to see of a parser: attachment by relation, distance and length; scores from raw text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recaster.evaluation.conll18 import score_trees
from recaster.evaluation.parse_counts import Counts, tabulate
from recaster.models.conllu import Sentence, join_text, write_sentence
from recaster.models.sentence_parser import SentenceParser

_SHOWN_RELATIONS = 20


def report_parse(predictions: Counts, targets: Counts, folder: Path) -> dict[str, Any]:
    """Draw `attachment.png` into `folder`; return its tables."""
    from matplotlib.figure import Figure

    tables = tabulate(predictions, targets)
    figure = Figure(figsize=(13, 5), layout="constrained")
    axes = figure.subplots(1, 3)
    relations = tables["by_relation"][:_SHOWN_RELATIONS]
    axes[0].barh([row["group"] for row in relations], [row["recall"] for row in relations])
    axes[0].invert_yaxis()
    axes[0].set(xlabel="recall", title="Attachment by relation, the frequent first")
    distances = tables["by_distance"]
    for name in ("precision", "recall"):
        axes[1].plot([row["group"] for row in distances], [row[name] for row in distances], "o-", label=name)
    axes[1].set(xlabel="words between head and dependent", title="Attachment by distance")
    axes[1].tick_params(axis="x", rotation=30)
    axes[1].legend()
    lengths = tables["by_length"]
    axes[2].bar([row["group"] for row in lengths], [row["las"] for row in lengths])
    axes[2].set(xlabel="words of the sentence", ylabel="labelled attachment", title="By sentence length")
    axes[2].tick_params(axis="x", rotation=30)
    figure.savefig(folder / "attachment.png", dpi=100)
    return tables


def measure_raw(parser: SentenceParser, gold: Sequence[Sentence]) -> dict[str, Any]:
    """F1 of everything where the parser gets running text alone, and how fast it is with it."""
    text = join_text(gold)
    started = time.perf_counter()
    found = parser.parse_sentences(parser.read(text))
    seconds = time.perf_counter() - started
    scores = {name: score.f1 for name, score in score_trees(gold, found).items()}
    return {"raw_text": scores, "raw_text_sentences_per_second": round(len(found) / seconds, 1)}


def show_trees(parsed: Sequence[Sentence]) -> list[str]:
    """The parses in CoNLL-U, one after the other."""
    return [write_sentence(sentence) for sentence in parsed]
