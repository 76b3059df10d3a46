"""How well a model foresees the tokens that are marked, row by row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.models.losses import NO_TARGET

_BATCH_TOKENS = 4096
"""Of one pass; at least one row."""


@torch.no_grad()
def score_tokens(
    model: nn.Module,
    lengths: NDArray[np.int64],
    read: Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]],
) -> NDArray[np.float64]:
    """Nats of each row's learned tokens, and how many of them are the best guess, `(rows, 2)`.

    Args:
        model: marked tokens → logits `(rows, marks, vocabulary)`; goes to the GPU where there is one.
        lengths: tokens of each row.
        read: marked tokens and targets of some rows.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    found = np.zeros((len(lengths), 2))
    for rows in _batches(lengths):
        tokens, targets = (part.to(device) for part in read(rows))
        logits = model(tokens)
        nats = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=NO_TARGET
        )
        found[rows, 0] = nats.view(targets.shape).double().sum(1).cpu().numpy()
        found[rows, 1] = (logits.argmax(2) == targets).sum(1).cpu().numpy()
    return found


def score_replies(
    model: nn.Module,
    lengths: NDArray[np.int64],
    read: Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]],
) -> NDArray[np.float64]:
    """Log-probability (nats) of each row's learned tokens together, `(rows,)`.

    Args: see `score_tokens`; rows of like length are read together, whatever their order.
    """
    order = np.argsort(lengths, kind="stable")
    found = np.zeros(len(lengths))
    found[order] = -score_tokens(model, lengths[order], lambda rows: read(order[rows]))[:, 0]
    return found


def _batches(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """All rows, in their order, in pieces of about `_BATCH_TOKENS` tokens."""
    pieces: list[list[int]] = []
    for row, length in enumerate(lengths.tolist()):
        widest = max([length, *(int(lengths[other]) for other in pieces[-1])]) if pieces else length
        if pieces and widest * (len(pieces[-1]) + 1) <= _BATCH_TOKENS:
            pieces[-1].append(row)
        else:
            pieces.append([row])
    return [np.array(piece) for piece in pieces]
