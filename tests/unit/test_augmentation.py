"""Augmentation: what each change does, and that a row's change does not depend on its batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recaster.data.augmentation import Augmentation
from recaster.data.picture_changes import crop, erase, paste, turn
from recaster.data.picture_set import PictureSet
from recaster.data.rand_augment import _CHANGES, rand_augment
from recaster.data.shards import Shard
from recaster.models.losses import build_loss
from recaster.recipe.training import Augmentation as Section
from recaster.recipe.training import TrainSection

_ROWS, _CLASSES = 50, 7
_PICTURES = torch.from_numpy(np.random.default_rng(0).random((_ROWS, 3, 12, 10), dtype=np.float32))
_LABELS = torch.arange(_ROWS) % _CLASSES
_ALL: dict[str, Any] = {
    "shift_pixels": 2,
    "border": "reflect",
    "horizontal_flip": True,
    "rotate_degrees": 15.0,
    "zoom": 0.2,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "rand_augment_operations": 2,
    "erase_probability": 0.5,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
}


def _load(rows: np.ndarray) -> tuple[Tensor, Tensor]:
    return _PICTURES[rows], _LABELS[rows]


def _augment(rows: np.ndarray, seed: int = 3, **options: Any) -> tuple[Tensor, Tensor]:
    section = Section(**options).model_dump()
    return Augmentation(section, rows=_ROWS, classes=_CLASSES).batch(_load, rows, seed)


@pytest.mark.parametrize(
    "options",
    [*({name: _ALL[name]} for name in _ALL if name != "border"), _ALL],
    ids=lambda options: "-".join(options) if len(options) == 1 else "all",
)
def test_a_row_s_change_is_its_own(options: dict[str, Any]) -> None:
    rows = np.random.default_rng(1).permutation(_ROWS)
    whole = _augment(rows, **options)
    assert not torch.equal(whole[0], _PICTURES[rows])
    assert not torch.equal(whole[0], _augment(rows, seed=4, **options)[0])
    assert whole[0].shape == (_ROWS, 3, 12, 10) and whole[0].min() >= 0 and whole[0].max() <= 1
    for start, stop in ((0, 1), (7, 30), (49, 50)):
        part = _augment(rows[start:stop], **options)
        for one, other in zip(part, whole, strict=True):
            assert torch.equal(one, other[start:stop])


def test_no_option_changes_nothing() -> None:
    rows = np.arange(_ROWS)
    images, labels = _augment(rows)
    assert torch.equal(images, _PICTURES) and torch.equal(labels, _LABELS)


def test_crops_and_flips_are_of_the_picture() -> None:
    offsets = torch.tensor([[0, 0], [2, 2], [4, 3]])
    moved = crop(_PICTURES[:3], offsets, pixels=2, border="zero")
    assert torch.equal(moved[1], _PICTURES[1])
    assert torch.equal(moved[0, :, 2:, 2:], _PICTURES[0, :, :-2, :-2]) and not moved[0, :, :2].any()
    assert torch.equal(moved[2, :, :-2, :-1], _PICTURES[2, :, 2:, 1:])
    flipped = _augment(np.arange(_ROWS), horizontal_flip=True)[0]
    same = (flipped == _PICTURES).flatten(1).all(1)
    mirrored = (flipped == _PICTURES.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all() and 10 < same.sum() < 40


def test_a_turn_turns() -> None:
    square = _PICTURES[:2, :, :10, :10]
    quarter = turn(square, angle=torch.full((2,), np.pi / 2), scale=torch.ones(2))
    wanted = [torch.rot90(square, turns, (2, 3)) for turns in (1, 3)]
    assert min((quarter - one).abs().max() for one in wanted) < 1e-4
    none = turn(square, angle=torch.zeros(2), scale=torch.ones(2))
    assert (none - square).abs().max() < 1e-5


def test_rand_augment_s_changes_are_thirteen_and_grow_with_strength() -> None:
    picture = _PICTURES[:1].expand(26, -1, -1, -1)
    which = (torch.arange(26) // 2 + 0.5) / 13
    chance = torch.stack([which, torch.arange(26) % 2 * 1.0], 1)[:, None]
    weak, strong = (rand_augment(picture, chance, magnitude=magnitude) for magnitude in (0.1, 0.9))
    moved = [(one - picture).abs().mean((1, 2, 3)) for one in (weak, strong)]
    unlike = {tuple(row.flatten().tolist()) for row in strong}
    assert len(unlike) == 26 - 4  # none, contrast at its widest, bits and solarising have no sides
    assert torch.equal(strong[:2], picture[:2])
    same = moved[0] == moved[1]
    assert same.sum() == 4  # neither has a strength: none, and contrast at its widest
    assert (moved[1][~same] > moved[0][~same]).all()
    chosen = rand_augment(_PICTURES, torch.rand(_ROWS, 3, 2), magnitude=0.5)
    assert chosen.min() >= 0 and chosen.max() <= 1


def test_erased_rectangles_have_one_colour_and_the_wanted_area() -> None:
    chance = torch.from_numpy(np.random.default_rng(2).random((_ROWS, 8), dtype=np.float32))
    erased = erase(_PICTURES, chance, probability=1.0)
    changed = (erased != _PICTURES).any(1)
    shares = changed.flatten(1).float().mean(1)
    assert (shares > 0).all() and shares.max() < 0.45 and 0.08 < shares.mean() < 0.27
    for row in range(_ROWS):
        assert torch.allclose(erased[row][:, changed[row]], chance[row, 5:, None])
        down, right = changed[row].nonzero().unbind(1)
        sides = [int(side.max() - side.min()) + 1 for side in (down, right)]
        assert sides[0] * sides[1] == changed[row].sum()


def test_shares_of_labels_are_those_of_the_pixels() -> None:
    images, others = torch.zeros(_ROWS, 3, 12, 10), torch.ones(_ROWS, 3, 12, 10)
    random = torch.from_numpy(np.random.default_rng(3).random((3, _ROWS), dtype=np.float32))
    pasted, share = paste(images, others, share=random[0], places=random[1:].T)
    assert torch.allclose(1 - pasted.mean((1, 2, 3)), share, atol=1e-6)
    _, targets = _augment(np.arange(_ROWS), mixup_alpha=0.5)
    assert torch.allclose(targets.sum(1), torch.ones(_ROWS))
    own = targets[torch.arange(_ROWS), _LABELS]
    assert ((targets > 1e-6).sum(1) <= 2).all() and own.min() > 0 and own.std() > 0.1


def test_losses_take_shares_of_labels() -> None:
    logits = torch.randn(_ROWS, _CLASSES, generator=torch.Generator().manual_seed(0))
    shares = torch.nn.functional.one_hot(_LABELS, _CLASSES).float()
    for name in ("cross-entropy", "brier"):
        loss = build_loss(
            {"name": name, "label_smoothing": 0.1, "gamma": 2.0, "class_weights": None}, training=True
        )
        assert torch.allclose(loss(logits, _LABELS), loss(logits, shares), rtol=1e-5)


def test_mixing_needs_a_loss_that_takes_it() -> None:
    section: dict[str, Any] = {
        "seed": 0,
        "epochs": 1,
        "batch_size": 8,
        "optimizer": {"name": "adamw", "learning_rate": 0.1},
        "augmentation": {"mixup_alpha": 0.2},
    }
    TrainSection.model_validate(section)
    with pytest.raises(ValueError, match="takes one label a sample"):
        TrainSection.model_validate({**section, "loss": {"name": "focal"}})
    with pytest.raises(ValueError, match="border belongs to shift_pixels"):
        Section(border="reflect")


_ELSEWHERE = torch.device("meta")
"""A device without values: what mixes it with a tensor of the processor is refused, as on a GPU."""


@pytest.mark.parametrize("mixed", ["mixup_alpha", "cutmix_alpha", "both"])
def test_changes_are_made_where_the_pictures_are(mixed: str) -> None:
    # RandAugment looks at values, which there are none of: see the next test.
    left_out = {
        "rand_augment_operations",
        *({"mixup_alpha", "cutmix_alpha"} - {mixed} if mixed != "both" else ()),
    }
    options = {name: value for name, value in _ALL.items() if name not in left_out}
    section = Section(**options).model_dump()

    def load(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        return tuple(value.to(_ELSEWHERE) for value in _load(rows))

    made = Augmentation(section, rows=_ROWS, classes=_CLASSES).batch(load, np.arange(9), 3)
    assert [value.device for value in made] == [_ELSEWHERE] * 2
    assert [value.shape for value in made] == [(9, 3, 12, 10), (9, _CLASSES)]


def test_each_change_of_rand_augment_is_made_where_the_pictures_are() -> None:
    pictures, strength = _PICTURES.to(_ELSEWHERE), torch.full((_ROWS,), 0.3, device=_ELSEWHERE)
    for change in _CHANGES:
        assert change(pictures, strength).device == _ELSEWHERE


def test_pictures_are_scaled_alike_wherever_that_happens() -> None:
    shard = Shard(
        images=np.random.default_rng(1).integers(0, 256, (6, 3, 4, 5), dtype=np.uint8),
        labels=np.arange(6),
        ids=[str(number) for number in range(6)],
        minimum=3.0,
        maximum=200.0,
    )
    pictures = PictureSet(shard, Augmentation(Section().model_dump(), rows=6, classes=6))
    made, labels = pictures.batch(np.array([4, 1]), seed=None)
    np.testing.assert_array_equal(made.numpy(), shard.scaled(np.array([4, 1])))
    assert labels.tolist() == [4, 1]
    assert [value.device for value in pictures.batch_on(_ELSEWHERE, np.arange(2), seed=5)] == [_ELSEWHERE] * 2
