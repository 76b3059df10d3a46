"""Rows that hold several documents, none of which sees another.

texts    <s> a a a | 2 b b | 2 …        the token that ends a document is foreseen by it and begins the next
chats    a a a 0 | b b 0 | …            the token between two belongs to the former, which does not foresee it
masked   101 a a a 102 | b b 102 | …    likewise
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recaster.core.errors import RecipeError

_BEFORE_THE_ROW = frozenset({"prompt", "prefix"})
"""Methods with trained vectors there."""
_HIDDEN = torch.finfo(torch.bfloat16).min
"""Added to the score of what is not seen; the same number in float32 and bf16."""


def document_mask(
    plain: Tensor, *, end: int, causal: bool, begins: bool = False, padding: int | None = None
) -> Tensor:
    """What each token sees, as transformers' models take it: 0 or a very small number, added to the scores.

    A token sees its own document, in a causal row what is before it. What fills up sees itself, and is not
    seen.

    Args:
        plain: token numbers without marks `(rows, tokens)`.
        end: the token that stands between documents.
        begins: it belongs to the later one, of which it says no more than that it begins.
        padding: the token that fills up; not needed in causal rows, where nothing looks ahead.

    Returns:
        `(rows, 1, tokens, tokens)`, float32: query by key.
    """
    ends = (plain == end).long()
    document = ends.cumsum(1) if begins else ends.cumsum(1) - ends
    seen = document[:, :, None] == document[:, None, :]
    itself = torch.eye(plain.shape[1], dtype=torch.bool, device=plain.device)
    if causal:
        seen &= torch.ones_like(itself).tril()
    if padding is not None:
        seen &= (plain != padding)[:, None, :]
    return torch.where(seen | itself, 0.0, _HIDDEN)[:, None]


def keep_apart(model: Any, *, end: int, method: str, where: str) -> None:
    """Let `model` keep the documents of a row apart, between which `end` stands.

    Args:
        method: of customization.
        where: the recipe's key that asks for it.

    Raises:
        RecipeError: its architecture, or the method, cannot.
    """
    if method in _BEFORE_THE_ROW:
        raise RecipeError(
            "Vectors before the row are of no document, and none would see them.",
            where=where,
            value=f"true with customize.method {method}",
            repair="set it to false, or use lora",
        )
    model.end = end
    check_apart(model, model.network, end=end, where=where)


def check_apart(model: nn.Module, network: Any, *, end: int, where: str) -> None:
    """Try whether `model` keeps the documents of a row apart: one changes, the other's logits must not.

    Raises:
        RecipeError: they do, since the architecture has no attention that takes such a mask, or each of its
            layers has its own.
    """
    config = network.config
    if getattr(config, "sliding_window", None) or "sliding_attention" in (
        getattr(config, "layer_types", None) or ()
    ):
        raise _refuse(config.model_type, "some of its layers have a window of their own", where)
    ordinary = [token for token in range(config.vocab_size) if token != end][-6:]
    first = [[*ordinary[:3], end, *ordinary[3:], end], [*ordinary[2:5], end, *ordinary[3:], end]]
    tokens = torch.tensor(first, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        told = model(tokens)[:, 4:]
    model.train(was_training)
    if not torch.allclose(told[0], told[1], rtol=1e-4, atol=1e-4):
        gap = float((told[0] - told[1]).abs().max())
        raise _refuse(config.model_type, f"logits differ by {gap:.2g}", where)


def _refuse(architecture: str, value: str, where: str) -> RecipeError:
    return RecipeError(
        "This architecture does not keep the documents of a row apart.",
        where=where,
        value=f"{architecture}: {value}",
        repair=f"set {where} to false",
    )
