"""Why a classifier answers as it does: what of a picture or text its answer rests on.

pictures   Grad-CAM: where the last feature map raises the answer's logit
texts      integrated gradients: what each token adds to the answer's logit
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_STEPS = 32
"""Between an absent text and the text itself."""


def map_activation(model: nn.Module, pictures: Tensor, classes: Tensor) -> Tensor:
    """Where in each picture the answer `classes` comes from, `(rows, height, width)` in 0..1.

    The map is that of the last layer whose output has places in the picture, of a convolution or a
    transformer's tokens, and that the answer depends on there. A picture in which nothing speaks for the
    answer has zeros.

    Args:
        pictures: `(rows, channels, height, width)`.
        classes: `(rows,)` numbers.

    Source: R. R. Selvaraju et al., "Grad-CAM", ICCV 2017.
    """
    with _watch_outputs(model) as seen, torch.enable_grad():
        logits = model(pictures.detach().requires_grad_())
        chosen = logits.gather(1, classes[:, None]).sum()
        gradients: tuple[Tensor | None, ...] = (
            torch.autograd.grad(chosen, seen, allow_unused=True) if seen else ()
        )
    for output, gradient in zip(reversed(seen), reversed(gradients), strict=True):
        if gradient is None:
            continue
        maps, slopes = _as_map(output.detach()), _as_map(gradient)
        if maps is None or slopes is None or not slopes.any():
            continue
        weighed = (slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
        weighed = F.interpolate(weighed, pictures.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        return weighed / weighed.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return torch.zeros(len(pictures), *pictures.shape[2:])


def attribute_tokens(model: nn.Module, tokens: Tensor, classes: Tensor) -> Tensor:
    """By how much each token raises the logit of `classes`, `(rows, tokens)`.

    The sum over a row's tokens is its logit less that of the same row with all its token vectors zero.

    Args:
        tokens: `(rows, tokens)` numbers.
        classes: `(rows,)` numbers.

    Source: M. Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017; the integral by
    the midpoint rule.
    """
    rows, length = tokens.shape
    shares = ((torch.arange(_STEPS) + 0.5) / _STEPS).repeat(rows)
    # All steps in one pass: many small passes would cost far more than their arithmetic.
    repeated = tokens.repeat_interleave(_STEPS, 0)
    with _scale_vectors(model, repeated, shares[:, None, None]) as seen, torch.enable_grad():
        chosen = model(repeated).gather(1, classes.repeat_interleave(_STEPS)[:, None]).sum()
        gradients = torch.autograd.grad(chosen, [scaled for _, scaled in seen])
    total = torch.zeros(repeated.shape)
    for (vectors, _), gradient in zip(seen, gradients, strict=True):
        total += (gradient * vectors).sum(-1).detach()
    return total.view(rows, _STEPS, length).mean(1)


@contextmanager
def _watch_outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of all modules that have places, in the order of their making."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad and _as_map(output) is not None:
            seen.append(output)

    hooks = [part.register_forward_hook(keep) for part in model.modules() if part is not model]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _as_map(output: Tensor) -> Tensor | None:
    """`(rows, channels, height, width)` of a layer's output; None where it has no places."""
    if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
        return output
    if output.ndim != 3:
        return None
    # A transformer's tokens: places row by row, after a class token and perhaps others.
    side = math.isqrt(output.shape[1])
    if side < 2:
        return None
    places = output[:, output.shape[1] - side * side :]
    as_map: Tensor = places.transpose(1, 2).unflatten(2, (side, side))
    return as_map


@contextmanager
def _scale_vectors(model: nn.Module, tokens: Tensor, shares: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Let the model see `shares` of the rows' vectors; collect these whole, and as it sees them."""
    seen: list[tuple[Tensor, Tensor]] = []

    def scale(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if given[0].shape != tokens.shape or not torch.equal(given[0], tokens):
            return None  # positions, say
        vectors = output.detach()
        scaled = (shares * vectors).requires_grad_()
        seen.append((vectors, scaled))
        return scaled

    parts = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    hooks = [part.register_forward_hook(scale) for part in parts]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
