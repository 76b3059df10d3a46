"""The metrics that a recipe can name."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

METRICS = {
    "accuracy": "higher",
    "top5_accuracy": "higher",
    "macro_f1": "higher",
    "micro_f1": "higher",
    "macro_average_precision": "higher",
    "negative_log_likelihood": "lower",
    "calibration_error": "lower",
    "predictive_entropy": "lower",
    "out_of_scope_auroc": "higher",
    "out_of_scope_recall": "higher",
    "in_scope_rejected": "lower",
    "accuracy_after_rejection": "higher",
    "perplexity": "lower",
    "token_accuracy": "higher",
    "preference_accuracy": "higher",
    "reference_free_accuracy": "higher",
    "reward_margin": "higher",
    "roc_auc": "higher",
    "equal_error_rate": "lower",
    "tar_at_far_0.1": "higher",
    "tar_at_far_0.01": "higher",
    "tar_at_far_0.001": "higher",
    "true_accept_rate": "higher",
    "false_accept_rate": "lower",
    "rank1": "higher",
    "rank5": "higher",
    "ap50": "higher",
    "mean_average_precision": "higher",
    "frechet_distance": "lower",
    "kernel_distance": "lower",
    "sample_precision": "higher",
    "sample_recall": "higher",
    "copied_fraction": "lower",
    "bleu": "higher",
    "chrf": "higher",
    "exact_match": "higher",
    "uas": "higher",
    "las": "higher",
    "clas": "higher",
    "upos_accuracy": "higher",
    "xpos_accuracy": "higher",
    "features_accuracy": "higher",
    "lemma_accuracy": "higher",
    "spearman": "higher",
    "coverage": "higher",
    "leak_resistance": "higher",
    "leak_resistance_unfiltered": "higher",
}
"""Every metric that a gate can name, and which direction is better."""


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return name


Metric = Annotated[str, AfterValidator(_known_metric)]
