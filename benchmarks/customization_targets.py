"""What was asked for of each way of customizing, beside what was measured."""

from __future__ import annotations

from typing import Any

from benchmarks.customization_pictures import FIGURES as _OF_PICTURES
from benchmarks.customization_runs import Figure
from benchmarks.customization_smaller import FIGURES as _OF_SMALLER
from benchmarks.record import target

Rows = dict[str, dict[str, Any]]
_FIGURES: list[Figure] = [
    (
        "SST-2, full, test accuracy",
        "at least 0.9",
        ("sst2/full",),
        lambda full: full["quality"],
        lambda found: found >= 0.9,
    ),
    (
        "SST-2, LoRA, points under full",
        "at most 1",
        ("sst2/full", "sst2/lora"),
        lambda full, lora: 100 * (full["quality"] - lora["quality"]),
        lambda found: found <= 1,
    ),
    (
        "SST-2, LoRA, share of parameters trained",
        "under 0.05",
        ("sst2/lora",),
        lambda lora: lora["trained_parameters"] / lora["parameters"],
        lambda found: found < 0.05,
    ),
    (
        "SST-2, an epoch of full over one of the probe",
        "at least 20",
        ("sst2/full", "sst2/probe"),
        lambda full, probe: full["seconds_an_epoch"] / probe["seconds_an_epoch"],
        lambda found: found >= 20,
    ),
    (
        "TREC-6, full, test accuracy",
        "at least 0.965",
        ("trec/full",),
        lambda full: full["quality"],
        lambda found: found >= 0.965,
    ),
    (
        "SmolLM2-135M on chitchat, LoRA, held-out perplexity under the base's",
        "at least 15 % lower",
        ("chitchat/lora",),
        lambda lora: 1 - lora["quality"] / lora["untuned"],
        lambda found: found >= 0.15,
    ),
]


def list_targets(rows: Rows) -> list[dict[str, Any]]:
    """The figures whose runs are all there."""
    targets = []
    for name, wanted, needed, measure, met in (*_FIGURES, *_OF_SMALLER, *_OF_PICTURES):
        if all(run in rows for run in needed):
            measured = round(measure(*(rows[run] for run in needed)), 4)
            targets.append(target(name, wanted, measured, met=met(measured)))
    return targets
