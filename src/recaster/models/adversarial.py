"""Two networks that train against each other, as one model whose parts take turns.

discriminator's turn   real and generated pictures → logits of both, penalty   (rows, 3, places)
generator's turn       generated pictures → logits                             (rows, 1, places)
evaluation             generated pictures beside the real ones                 (rows, 2, pixels)

A discriminator judges a picture as a whole, or many places of it (`models.projected_discriminator`).

Source: Goodfellow et al., "Generative adversarial nets", NeurIPS 2014.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recaster.models.adaptive_augmentation import AdaptiveAugmentation
from recaster.models.discriminator import Discriminator, build_discriminator
from recaster.models.game_rows import GameRows, part_rows
from recaster.models.generator import Generator, build_model
from recaster.models.projected_discriminator import ProjectedDiscriminator, Pyramid

DISCRIMINATOR, GENERATOR = "discriminator", "generator"
"""The parts' names: of the child modules, and so of their parameters."""


class Adversarial(nn.Module):
    """A generator, and the discriminator that it is trained against."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator | ProjectedDiscriminator,
        *,
        shape: tuple[int, int, int],
        options: Mapping[str, Any],
    ) -> None:
        """Put both together.

        Args:
            shape: channels, height, width of pictures.
            options: the recipe's `train.adversary`.
        """
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.augmentation = AdaptiveAugmentation(
            target=options["augmentation_target"],
            pictures=options["augmentation_pictures"],
            constant=options["augmentation_probability"],
        )
        self._shape, self._turns = shape, int(options["turns"])
        self._penalty, self._weight = options["penalty"], float(options["penalty_weight"])
        self._part = DISCRIMINATOR

    def turns(self) -> list[str]:
        """See `Alternating.turns`."""
        return [*[DISCRIMINATOR] * self._turns, GENERATOR]

    def begin_turn(self, part: str) -> None:
        """See `Alternating.begin_turn`."""
        self._part = part
        self.augmentation.adapt()

    def product(self) -> str:
        """The generator."""
        return GENERATOR

    def forward(self, inputs: Tensor) -> Tensor:
        """What the present turn's loss needs of `inputs` `(rows, columns)`, see `models.game_rows`."""
        rows = part_rows(inputs, noise=self.generator.noise, shape=self._shape)
        if not self.training:
            generated = self._generate(rows)
            return torch.stack([generated.flatten(1), rows.pictures.flatten(1)], 1)
        if self._part == GENERATOR:
            with _without_gradients(self.discriminator):
                return self._judge(2 * self._generate(rows) - 1, rows)[:, None]
        return self._compare(rows)

    def _generate(self, rows: GameRows) -> Tensor:
        pictures: Tensor = self.generator(rows.noise, rows.classes if self.generator.classes else None)
        return pictures

    def _judge(self, pictures: Tensor, rows: GameRows) -> Tensor:
        """Logits `(pictures, places)` of one or more sets of the rows' pictures, one set after the other."""
        sets = len(pictures) // max(1, len(rows.noise))
        seen = self.augmentation(pictures, rows.chances.repeat(sets, 1))
        classes = rows.classes.repeat(sets) if self.generator.classes else None
        apart = {"sets": sets} if isinstance(self.discriminator, ProjectedDiscriminator) else {}
        logits: Tensor = self.discriminator(seen, classes, **apart)
        return logits

    def _compare(self, rows: GameRows) -> Tensor:
        with torch.no_grad():
            generated = 2 * self._generate(rows) - 1
        real = 2 * rows.pictures - 1
        pieces, watched = [real, generated], real
        if self._penalty == "interpolated":
            share = rows.chances[:, -1:, None, None]
            watched = torch.lerp(real, generated, share)
            pieces.append(watched)
        if self._penalty != "none":
            watched.requires_grad_()
        # One pass for all: spectral normalisation moves its vectors once a pass.
        logits = self._judge(torch.cat(pieces), rows).float()
        of_real, of_generated, *of_others = logits.split(len(real))
        self.augmentation.listen(of_real.detach())
        judged = of_others[0] if of_others else of_real
        penalty = self._weight * self._penalise(judged, watched)
        return torch.stack([of_real, of_generated, penalty[:, None].expand_as(of_real)], 1)

    def _penalise(self, logits: Tensor, watched: Tensor) -> Tensor:
        """`(rows,)`: half the squared gradient at real pictures (R1), or how far its norm is from 1."""
        if self._penalty == "none":
            return logits.new_zeros(len(logits))
        (gradient,) = torch.autograd.grad(logits.mean(1).sum(), watched, create_graph=True)
        squares = gradient.float().flatten(1).square().sum(1)
        if self._penalty == "r1":
            return squares / 2
        return (torch.sqrt(squares + 1e-12) - 1).square()


@contextmanager
def _without_gradients(part: nn.Module) -> Iterator[None]:
    """Leave `part`'s parameters out of the graph that the body makes; what was frozen stays so."""
    trained = [value for value in part.parameters() if value.requires_grad]
    for value in trained:
        value.requires_grad_(False)
    try:
        yield
    finally:
        for value in trained:
            value.requires_grad_(True)


def build_adversarial(
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    hidden: int | None = None,
    network: nn.Module | None = None,
) -> Adversarial:
    """Both networks with fresh weights from torch's present random state.

    Args:
        arguments: the generator's, see `models.generator.build_model`.
        options: the recipe's `train.adversary`.
        hidden: channels of the discriminator; without it the generator's.
        network: an open one, through whose features the discriminator sees pictures.

    Raises:
        ValueError: no generator makes pictures of this size.
        RecipeError: the discriminator cannot use the network.
    """
    generator = build_model(**arguments)
    assert isinstance(generator, Generator)  # noqa: S101
    shape = (arguments["channels"], arguments["height"], arguments["width"])
    width, spectral = hidden or arguments["hidden"], options["spectral_norm"]
    discriminator: Discriminator | ProjectedDiscriminator
    if network is None:
        shared = {key: value for key, value in arguments.items() if key != "noise"}
        discriminator = build_discriminator(**{**shared, "hidden": width}, spectral=spectral)
    else:
        discriminator = ProjectedDiscriminator(
            Pyramid(network, shape=shape), hidden=width, classes=arguments["classes"], spectral=spectral
        )
    return Adversarial(generator, discriminator, shape=shape, options=options)
