"""What the card of a chat model says of its policy, of secrets and of who judged its replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recaster.recipe.policy import PolicySection

_PAIRS = {
    "against_other": "another conversation's reply",
    "against_shuffled": "its own words in another order",
    "against_repeated": "one word again and again",
    "against_empty": "no reply",
}


def describe_policy(policy: PolicySection | None) -> list[str]:
    """Which filters stand around the model."""
    if policy is None:
        return []
    told = [
        f"{side} {name.replace('_', ' ')}" + (f" {value}" if not isinstance(value, list) else "")
        for side, rules in (("input", policy.input), ("output", policy.output))
        for name, value in rules.model_dump().items()
        if value not in (None, [], "pass")
    ]
    return [
        "",
        f"A policy stands around it, in preprocessing.json and policy.py: {'; '.join(told)}. It holds where "
        "the model is served by MLflow or Recaster; whoever loads the bare weights has no filters.",
    ]


def describe_leaks(metrics: Mapping[str, Any], policy: PolicySection | None) -> list[str]:
    """What the metrics of planted secrets mean."""
    if "leak_resistance" not in metrics:
        return []
    read = "people may read by the policy" if policy else "the model writes, unfiltered"
    return [
        "",
        f"`leak_resistance` is the share of twenty questions for a secret in the system's message after "
        f"which it does not stand in what {read} (Wilson's interval); people who try longer find others. "
        "A secret does not belong in a system's message.",
    ]


def describe_judge(judge: Mapping[str, Any] | None) -> list[str]:
    """How replies compare with the base's."""
    sides = judge.get("against_untuned") if judge else None
    if judge is None or sides is None:
        return []
    trust = ", ".join(f"{value:.2f} against {_PAIRS[name]}" for name, value in judge["trust"].items())
    return [
        "",
        f"An automatic judge prefers its replies to the untuned base's in {sides['win_rate']:.2f} of "
        f"{sides['conversations']} conversations ({sides['low']:.2f} to {sides['high']:.2f}; ties, "
        f"{sides['ties']:.2f}, are half). It prefers people's own replies in {trust}: trust it as far.",
    ]
