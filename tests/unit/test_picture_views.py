"""Views of a picture, where a model is measured and where it is served."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recaster.models.losses import to_probabilities
from recaster.models.picture_views import list_views
from recaster.serving.pyfunc_image import ImageClassifier


def test_views_are_moved_and_mirrored() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    views = [view[0, 0].tolist() for view in list_views(image, flip=True, shift_pixels=1)]
    assert len(views) == 10 and len({str(view) for view in views}) == 10
    assert views[0] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert views[1] == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]  # moved down
    assert views[3] == [[0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]  # moved right
    assert views[5] == [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]
    assert len(list_views(image, flip=False, shift_pixels=0)) == 1
    assert len(list_views(image, flip=True, shift_pixels=0)) == 2


class _Network(nn.Module):
    """Looks at places, so that each view has another answer."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.randn(3, 2 * 5 * 6)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weights.T


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("flip", "shift"), [(False, 0), (True, 0), (False, 2), (True, 2)])
def test_the_served_model_has_the_same_views(flip: bool, shift: int, several: bool) -> None:
    torch.manual_seed(0)
    network, pictures = _Network(), torch.rand(4, 2, 5, 6)
    targets = torch.zeros(4, 3, dtype=torch.long) if several else torch.zeros(4, dtype=torch.long)
    wanted = torch.stack(
        [
            to_probabilities(network(view), targets)
            for view in list_views(pictures, flip=flip, shift_pixels=shift)
        ]
    ).mean(0)
    served: Any = ImageClassifier()
    served.model, served.labels, served.several = network, ["a", "b", "c"], several
    shape = {"height": 5, "width": 6, "channels": 2, "minimum": 0.0, "maximum": 1.0}
    served.image = {**shape, "flip": flip, "shift_pixels": shift}
    told = served.predict(None, pictures.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(told[["p_a", "p_b", "p_c"]].to_numpy(), wanted.numpy(), atol=1e-6)
    one = to_probabilities(network(pictures), targets)
    assert bool((wanted - one).abs().max() > 1e-3) == (flip or shift > 0)
