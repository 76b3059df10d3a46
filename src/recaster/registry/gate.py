"""The gate: a model becomes champion only when it keeps every bar and beats the present champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recaster.recipe.metrics import METRICS
from recaster.recipe.schema import Bar, GateSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The gate's answer and its reasons, the deciding ones first."""

    accepted: bool
    reasons: list[str]


def decide(
    gate: GateSection,
    candidate: Mapping[str, float],
    champion: Mapping[str, float] | None,
    difference: tuple[float, float, float] | None,
    champion_version: str,
) -> Verdict:
    """Hold `candidate`'s metrics against the bars and the champion's metrics on the same records.

    Args:
        champion: None when there is no other champion: the bars alone decide.
        difference: candidate minus champion in the compared metric: point, low, high.
    """
    outcomes = [_keeps(bar, candidate.get(bar.metric)) for bar in gate.bars]
    if champion is not None and difference is not None:
        outcomes.append(_beats(gate, candidate, champion, difference, champion_version))
    else:
        outcomes.append((True, "there is no other champion"))
    failed = [reason for passed, reason in outcomes if not passed]
    return Verdict(accepted=not failed, reasons=failed or [reason for _, reason in outcomes])


def _keeps(bar: Bar, value: float | None) -> tuple[bool, str]:
    if value is None:
        return False, f"{bar.metric} was not measured, metrics.json says why, and there is a bar for it"
    low = bar.min is None or value >= bar.min
    high = bar.max is None or value <= bar.max
    wanted = " and ".join(
        text
        for text, bound in ((f"at least {bar.min}", bar.min), (f"at most {bar.max}", bar.max))
        if bound is not None
    )
    return low and high, f"{bar.metric} {value:.4f}, the bar wants {wanted}"


def _beats(
    gate: GateSection,
    candidate: Mapping[str, float],
    champion: Mapping[str, float],
    difference: tuple[float, float, float],
    version: str,
) -> tuple[bool, str]:
    metric, wanted = gate.champion.metric, gate.champion.min_improvement
    sign = 1.0 if METRICS[metric] == "higher" else -1.0
    better = sign * (candidate[metric] - champion[metric]) > wanted
    point, low, high = difference
    word = "beats" if better else "does not beat"
    return better, (
        f"{word} champion version {version} in {metric}:"
        f" {candidate[metric]:.4f} against {champion[metric]:.4f}"
        f" (difference {point:+.4f}, interval {low:+.4f} to {high:+.4f}; wanted better by more than {wanted})"
    )
