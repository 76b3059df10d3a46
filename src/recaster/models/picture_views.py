"""Several views of a picture, whose answers are averaged: augmentation when a model is asked, not trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def list_views(images: Tensor, *, flip: bool, shift_pixels: int) -> list[Tensor]:
    """`images` `(rows, channels, height, width)` as they are, moved to four sides, and all mirrored.

    Args:
        flip: with mirror images, twice as many views.
        shift_pixels: how far they are moved up, down, left and right; the border is repeated. 0: not at all.
    """
    views = [images]
    if shift_pixels:
        wide = F.pad(images, [shift_pixels] * 4, mode="replicate")
        height, width = images.shape[2:]
        for top, left in ((0, 1), (2, 1), (1, 0), (1, 2)):
            down, right = top * shift_pixels, left * shift_pixels
            views.append(wide[:, :, down : down + height, right : right + width])
    return views + [torch.flip(view, [3]) for view in views] if flip else views
