"""Rows that hold several documents, none of which sees another.

causal   <s> a a a | 2 b b | 2 …        the token that ends a document is foreseen by it and begins the next
masked   101 a a a 102 | b b 102 | …    it belongs to the document
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recaster.core.errors import RecipeError

_HIDDEN = torch.finfo(torch.bfloat16).min
"""Added to the score of what is not seen; the same number in float32 and bf16."""


def document_mask(plain: Tensor, *, end: int, causal: bool, padding: int | None = None) -> Tensor:
    """What each token sees, as transformers' models take it: 0 or a very small number, added to the scores.

    A token sees its own document: in a causal row what is before it, and the token that ended the document
    before, which says no more than that one begins. What fills up sees itself, and is not seen.

    Args:
        plain: token numbers without marks `(rows, tokens)`.
        end: the token that stands between documents.
        padding: the token that fills up; not needed in causal rows, where nothing looks ahead.

    Returns:
        `(rows, 1, tokens, tokens)`, float32: query by key.
    """
    ends = (plain == end).long()
    document = ends.cumsum(1) if causal else ends.cumsum(1) - ends
    seen = document[:, :, None] == document[:, None, :]
    itself = torch.eye(plain.shape[1], dtype=torch.bool, device=plain.device)
    if causal:
        seen &= torch.ones_like(itself).tril()
    if padding is not None:
        seen &= (plain != padding)[:, None, :]
    return torch.where(seen | itself, 0.0, _HIDDEN)[:, None]


def check_apart(model: nn.Module, network: Any, *, end: int) -> None:
    """Try whether `model` keeps the documents of a row apart: one changes, the other's logits must not.

    Raises:
        RecipeError: they do, since the architecture has no attention that takes such a mask, or each of its
            layers has its own.
    """
    config = network.config
    if getattr(config, "sliding_window", None) or "sliding_attention" in (
        getattr(config, "layer_types", None) or ()
    ):
        raise _refuse(config.model_type, "some of its layers have a window of their own")
    ordinary = [token for token in range(config.vocab_size) if token != end][-6:]
    first = [[*ordinary[:3], end, *ordinary[3:], end], [*ordinary[2:5], end, *ordinary[3:], end]]
    tokens = torch.tensor(first, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        told = model(tokens)[:, 4:]
    model.train(was_training)
    if not torch.allclose(told[0], told[1], rtol=1e-4, atol=1e-4):
        raise _refuse(config.model_type, f"logits differ by {float((told[0] - told[1]).abs().max()):.2g}")


def _refuse(architecture: str, value: str) -> RecipeError:
    return RecipeError(
        "This architecture does not keep the documents of a row apart.",
        where="data.corpus.apart",
        value=f"{architecture}: {value}",
        repair="set data.corpus.apart to false, or data.corpus.packed to false",
    )
