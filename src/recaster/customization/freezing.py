"""Which parameters stay as they are, by the patterns of the recipe's `train.freeze`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from recaster.core.errors import RecipeError


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take the parameters whose names match one of `patterns` out of training.

    Raises:
        RecipeError: a pattern names no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise RecipeError(
                "This pattern names no parameter.",
                where="train.freeze",
                value=pattern,
                repair=f"parameters are named like {', '.join(names[:3])}",
            )
        for name in found:
            model.get_parameter(name).requires_grad_(False)
