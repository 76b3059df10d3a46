"""What of a recipe goes together with preferences: pairs of replies of which one is better."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recaster.recipe.schema import Recipe

OF_PREFERENCES = ("preference_accuracy", "reference_free_accuracy", "reward_margin")
"""Metrics that only say something of pairs of replies."""
PREFERENCE = "preference"
"""The loss over them."""


def check_preferences(recipe: Recipe) -> None:
    """Pairs of replies have their own loss and metrics, and a base that they are compared with.

    Raises:
        ValueError: what does not go together, and the repair.
    """
    loss, chat = recipe.train.loss, recipe.data.chat
    pairs = chat is not None and chat.preferences
    if pairs != (loss.name == PREFERENCE):
        told = f"needs train.loss {PREFERENCE}" if pairs else "is not set, for which it is"
        raise ValueError(f"data.chat.preferences {told}; train.loss is {loss.name}")
    named = (*(bar.metric for bar in recipe.gate.bars), recipe.gate.champion.metric)
    if not pairs:
        if odd := [metric for metric in named if metric in OF_PREFERENCES]:
            raise ValueError(f"{odd[0]} is of pairs of replies, data.chat.preferences; use another metric")
        return
    if chat is not None and chat.packed:
        raise ValueError("data.chat.packed is not for pairs of replies; remove it")
    if recipe.model.from_scratch:
        raise ValueError(
            f"data.chat.preferences moves a model away from its base, and {recipe.model.base} has fresh "
            "weights, which prefer nothing; name a model that was tuned on conversations before"
        )
    if loss.consistency:
        raise ValueError("train.loss.consistency compares single answers, not pairs of replies; remove it")
