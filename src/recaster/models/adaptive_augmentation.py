"""Changes to what a discriminator sees, real or generated, that it cannot learn a small data set by heart.

How often they happen follows how sure the discriminator is of real pictures. Source: Karras et al., "Training
generative adversarial networks with limited data", NeurIPS 2020; the changes are those of Zhao et al.,
"Differentiable augmentation for data-efficient GAN training", NeurIPS 2020: shift, cutout, colour.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recaster.data.picture_changes import COLOURS, crop, erase

_MOST = 0.8
"""Probability beyond which changes leak into what is generated (section 2.2 of the paper)."""
_STRENGTH = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5}
_SHIFTED_SHARE = 8
"""Pictures are shifted by up to this part of their side."""


class AdaptiveAugmentation(nn.Module):
    """Remembers, and so saves in checkpoints, how often pictures are changed."""

    probability: Tensor
    told: Tensor
    """Sum of the signs of real pictures' logits since the probability was last moved, and how many there
    were; the same on all ranks."""

    def __init__(self, *, target: float | None, pictures: int, constant: float | None = None) -> None:
        """Make one that changes nothing yet, or always as often.

        Args:
            target: the mean sign of real pictures' logits that is aimed at; None: the probability stays.
            pictures: real ones over which the probability may go from 0 to 1.
            constant: the probability, where no target is.
        """
        super().__init__()
        self.target, self.pictures, self._acts = target, pictures, bool(target is not None or constant)
        self.register_buffer("probability", torch.tensor(constant or 0.0))
        self.register_buffer("told", torch.zeros(2))

    def forward(self, pictures: Tensor, chances: Tensor) -> Tensor:
        """`pictures` `(rows, channels, height, width)` in -1..1, some of them changed.

        Args:
            chances: `(rows, 12)` in 0..1: whether and how each kind of change is made.
        """
        if not self._acts:
            return pictures
        shifted = self._shift((pictures + 1) / 2, chances[:, :3])
        for number, (name, change) in enumerate(COLOURS.items(), start=3):
            # One number tells both whether and how: below the probability it is spread over 0..1 again.
            chance = chances[:, number]
            acts, spread = chance < self.probability, chance / self.probability.clamp(min=1e-6)
            factor = torch.where(acts, 1 + _STRENGTH[name] * (2 * spread - 1), 1.0)
            shifted = change(shifted, factor[:, None, None, None])
        grey = shifted.new_full((len(shifted), shifted.shape[1]), 0.5)
        shifted = erase(shifted, torch.cat([chances[:, 6:11], grey], 1), probability=self.probability)
        return 2 * shifted - 1

    def _shift(self, pictures: Tensor, chances: Tensor) -> Tensor:
        most = max(1, min(pictures.shape[-2:]) // _SHIFTED_SHARE)
        offsets = (chances[:, 1:] * (2 * most + 1)).long().clamp(max=2 * most)
        acts = chances[:, :1] < self.probability
        return crop(pictures, torch.where(acts, offsets, most), pixels=most, border="reflect")

    @torch.no_grad()
    def listen(self, logits: Tensor) -> None:
        """Take down what all ranks' discriminators say of real pictures, in one pass of a step.

        Args:
            logits: `(rows,)`, of this rank's real pictures.
        """
        if self.target is None:
            return
        told = torch.stack([logits.float().sign().sum(), logits.new_tensor(float(len(logits)))])
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(told)
        self.told.add_(told)

    @torch.no_grad()
    def adapt(self) -> None:
        """Move the probability by what was said in the last step, however many passes that had."""
        if self.target is None:
            return
        signs, rows = self.told
        step = torch.sign(signs - self.target * rows) * rows / self.pictures
        self.probability.copy_((self.probability + step).clamp(0, _MOST))
        self.told.zero_()
