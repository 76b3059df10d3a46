"""Whose turn it is in a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

_ROLES = frozenset({"system", "user", "assistant"})


def check_order(messages: Sequence[Mapping[str, str]]) -> str:
    """Empty for system (if any), user, assistant, user, …; else what is out of order."""
    roles = [message["role"] for message in messages]
    if unknown := sorted(set(roles) - _ROLES):
        return f"unknown role {unknown[0]}"
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if "system" in turns:
        return "system after the beginning"
    if turns[:1] == ["assistant"]:
        return "assistant before user"
    twice = next((one for one, other in pairwise(turns) if one == other), "")
    return f"{twice} twice on end" if twice else ""
