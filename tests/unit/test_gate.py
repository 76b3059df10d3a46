"""The gate's answers."""

from __future__ import annotations

from recaster.recipe.schema import Bar, Comparison, GateSection
from recaster.registry.gate import decide

GATE = GateSection(
    bars=[Bar(metric="accuracy", min=0.9)],
    champion=Comparison(metric="negative_log_likelihood", min_improvement=0.01),
)
GOOD = {"accuracy": 0.95, "negative_log_likelihood": 0.10}


def test_bars_alone_decide_without_a_champion() -> None:
    assert decide(GATE, GOOD, None, None, "").accepted
    verdict = decide(GATE, {**GOOD, "accuracy": 0.89}, None, None, "")
    assert not verdict.accepted
    assert "0.8900" in verdict.reasons[0] and "0.9" in verdict.reasons[0]


def test_champion_must_be_beaten_by_more_than_the_margin() -> None:
    def against(loss: float) -> bool:
        champion = {"accuracy": 0.99, "negative_log_likelihood": loss}
        return decide(GATE, GOOD, champion, (GOOD["negative_log_likelihood"] - loss, -1.0, 1.0), "4").accepted

    assert against(0.12)
    assert not against(0.105)
    assert not against(0.05)
