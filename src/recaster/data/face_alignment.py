"""Faces brought to one place by five points: eyes, nose, corners of the mouth.

picture + [[38, 52], [74, 52], …]   →   turned, scaled and shifted so that the points lie on the template
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recaster.data.records import Pixels

if TYPE_CHECKING:
    from recaster.recipe.data import ImageShape

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""As they lie in the picture, left to right."""
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_TEMPLATE_SIDE = 112.0
"""The places that ArcFace's authors use for pictures of 112x112 (Deng et al. 2019)."""


def align(pixels: Pixels, landmarks: NDArray[np.float64], image: ImageShape) -> Pixels:
    """The face of `pixels` `(height, width, channels)` in the recipe's size; what lies outside is black.

    Args:
        landmarks: `(5, 2)`, across and down in pixels of the upright picture, in the order of `POINTS`.

    Raises:
        ValueError: a point lies outside of the picture, or all on one spot.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    for name, (across, down) in zip(POINTS, landmarks.tolist(), strict=True):
        if not (0 <= across < width and 0 <= down < height):
            raise ValueError(f"{name} at ({across:g}, {down:g}) lies outside of {width} x {height} pixels")
    if pixels.dtype != np.uint8:
        raise ValueError("pictures of more than 8 bits a pixel are not aligned; bring them to 8 bits")
    wanted = _TEMPLATE * min(image.width, image.height) / _TEMPLATE_SIDE
    wanted += (np.array([image.width, image.height]) - min(image.width, image.height)) / 2
    back = find_similarity(wanted, landmarks)  # from places of the new picture to those of the old one
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    aligned = np.asarray(
        picture.transform(
            (image.width, image.height),
            Image.Transform.AFFINE,
            tuple(back.flatten().tolist()),
            Image.Resampling.BILINEAR,
        )
    )
    return aligned[:, :, None] if aligned.ndim == 2 else aligned


def find_similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The turn, scale and shift `(2, 3)` that bring `source` `(points, 2)` nearest to `target`.

    Raises:
        ValueError: the points of one of them lie on one spot.

    Source: Umeyama 1991, least squares; without mirror images.
    """
    middles = source.mean(0), target.mean(0)
    one, other = source - middles[0], target - middles[1]
    spread = np.square(one).sum()
    if not spread or not np.square(other).sum():
        raise ValueError("all landmarks lie on one spot")
    left, stretch, right = np.linalg.svd(other.T @ one)
    signs = np.array([1.0, np.sign(np.linalg.det(left @ right))])
    turn = left @ np.diag(signs) @ right
    scale = (stretch * signs).sum() / spread
    shift = middles[1] - scale * turn @ middles[0]
    return np.column_stack([scale * turn, shift])
