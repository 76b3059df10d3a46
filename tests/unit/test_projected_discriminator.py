"""A discriminator behind a frozen open network: what it sees, what moves, and networks it cannot use."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from recaster.core.errors import RecipeError
from recaster.core.files import write_json
from recaster.models import mobilenet_v2, small_cnn
from recaster.models.adversarial import Adversarial, build_adversarial
from recaster.models.adversarial_losses import build_adversarial_loss
from recaster.models.generators import build_players
from recaster.models.loading import read_state
from recaster.models.projected_discriminator import Pyramid
from recaster.recipe.adversary import AdversarySection
from recaster.recipe.load import load_recipe
from tests.conftest import ROOT
from tests.unit.games import make_rows

_SHAPE, _NOISE = (3, 16, 16), 5
_ARGUMENTS: dict[str, Any] = {
    "architecture": "dcgan",
    "channels": 3,
    "height": 16,
    "width": 16,
    "hidden": 8,
    "noise": _NOISE,
    "classes": 3,
}
_NETWORK: dict[str, Any] = {"channels": 3, "classes": 4, "hidden": 8, "dropout": 0.0, "activation": "relu"}


def _network() -> nn.Module:
    torch.manual_seed(7)
    return small_cnn.build_model(height=16, width=16, **_NETWORK)


def _players(**options: Any) -> Adversarial:
    section = AdversarySection.model_validate({"encoder": "path:x", **options}).model_dump()
    torch.manual_seed(1)
    return build_adversarial(_ARGUMENTS, section, network=_network())


def _rows(count: int) -> Tensor:
    return make_rows(count, noise=_NOISE, shape=_SHAPE)


def _pyramid(model: Adversarial) -> Any:
    discriminator: Any = model.discriminator
    return discriminator.pyramid


def test_maps_are_those_of_the_network() -> None:
    network = mobilenet_v2.build_model(
        channels=3, height=32, width=32, classes=5, dropout=0.0, size=64
    ).eval()
    pyramid = Pyramid(copy.deepcopy(network), shape=(3, 32, 32))
    pictures = torch.rand(2, 3, 32, 32)
    features, maps = network.preprocess(pictures), []
    for layer in network.features:
        features = layer(features)
        maps.append(features)
    # The last of each size from a quarter on: 16, 8, 4 and 2 pixels of the 64.
    wanted = [maps[3], maps[6], maps[13], maps[18]]
    found = pyramid._maps(pictures)
    assert pyramid.sides == [16, 8, 4, 2]
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
    assert [mixed.shape for mixed in pyramid(2 * pictures - 1)] == [
        (2, 64, side, side) for side in (16, 8, 4, 2)
    ]


def test_mixing_goes_from_coarse_to_fine() -> None:
    pyramid = Pyramid(_network(), shape=_SHAPE)
    maps = pyramid._maps(torch.rand(2, *_SHAPE))
    pyramid._maps = lambda _: maps  # type: ignore[method-assign]
    before = pyramid(torch.zeros(2, *_SHAPE))
    maps[-1] = maps[-1] + 1
    assert all(
        not torch.equal(one, other) for one, other in zip(before, pyramid(torch.zeros(1)), strict=True)
    )
    before = pyramid(torch.zeros(1))
    maps[0] = maps[0] + 1
    same = [torch.equal(one, other) for one, other in zip(before, pyramid(torch.zeros(1)), strict=True)]
    assert same == [False] + [True] * (len(maps) - 1)


def test_only_the_part_whose_turn_it_is_moves() -> None:
    model = _players(augmentation_target=0.6).train()
    (network,) = _pyramid(model)._network
    published = copy.deepcopy(network.state_dict())
    fixed = copy.deepcopy(_pyramid(model).state_dict())
    loss_sum, rows = build_adversarial_loss("hinge"), _rows(6)
    for part in ("discriminator", "generator"):
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        model.begin_turn(part)
        model.zero_grad(set_to_none=True)
        trained = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.5)
        loss_sum(model(rows), torch.zeros(6)).backward()
        optimizer.step()
        moved = {
            name.split(".")[0]
            for name, value in model.named_parameters()
            if not torch.equal(value, before[name])
        }
        assert moved == {part}
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, published[name])
    assert all(torch.equal(value, fixed[name]) for name, value in _pyramid(model).state_dict().items())
    assert not any("_network" in name for name in model.state_dict())


def test_real_and_generated_pictures_are_normalised_apart() -> None:
    """Else the one would give the other away; and a batch of copies looks like one, not like its picture."""
    discriminator: Any = _players().discriminator.eval()
    classes = torch.tensor([0, 1, 2, 0])
    real, made = torch.rand(2, 4, *_SHAPE)
    together = discriminator(torch.cat([real, made]), classes.repeat(2), sets=2)
    alone = torch.cat([discriminator(real, classes), discriminator(made, classes)])
    torch.testing.assert_close(together, alone)
    copies = made[:1].repeat(4, 1, 1, 1)
    assert (discriminator(copies, classes[:1].repeat(4)) - alone[4]).abs().max() > 0.1


def test_each_place_counts_alike() -> None:
    """The mean over places of the hinge, not the hinge of their mean."""
    torch.manual_seed(3)
    real, made = torch.randn(4, 7), torch.randn(4, 7)
    outputs = torch.stack([real, made, torch.full((4, 7), 0.25)], 1)
    wanted = (F.relu(1 - real) + F.relu(1 + made)).mean(1).sum() + 4 * 0.25
    loss_sum = build_adversarial_loss("hinge")
    assert float(loss_sum(outputs, real)) == pytest.approx(float(wanted))
    assert float(loss_sum(made[:, None], real)) == pytest.approx(float(-made.mean(1).sum()))


def test_the_class_is_heard() -> None:
    model = _players().eval()
    pictures = torch.rand(2, *_SHAPE)
    one, other = (model.discriminator(pictures, torch.tensor(classes)) for classes in ([0, 1], [0, 2]))
    same = (one == other).all(1)
    assert same.tolist() == [True, False]


def test_the_network_moves_along() -> None:
    model = _players()
    model.to(torch.float64).to("meta")
    (network,) = _pyramid(model)._network
    assert {(value.device.type, value.dtype) for value in network.parameters()} == {("meta", torch.float64)}


def test_players_are_built_from_a_folder(tmp_path: Path) -> None:
    network = _network()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", {"architecture": "small_cnn", "arguments": _NETWORK})
    section = AdversarySection.model_validate({"encoder": "path:x", "width": 12}).model_dump()
    model = build_players(_ARGUMENTS, section, None, critic=tmp_path)
    (found,) = _pyramid(model)._network
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in read_state(tmp_path).items())
    assert model.discriminator.width == 12


def test_networks_without_maps_are_refused() -> None:
    with pytest.raises(RecipeError, match="cannot look into"):
        Pyramid(nn.Sequential(nn.Conv2d(3, 4, 3)), shape=_SHAPE)
    with pytest.raises(RecipeError, match="encoder_size"):
        Pyramid(
            mobilenet_v2.build_model(channels=3, height=32, width=32, classes=5, dropout=0.0), shape=(3, 2, 2)
        )


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["train.adversary.encoder_size=64"], "belong to encoder"),
        (["train.adversary.encoder=path:x", "evaluate.encoder=path:x"], "one network"),
        (["train.adversary={encoder: 'path:x', penalty: r1}"], "by the batch it stands in"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        load_recipe(ROOT / "recipes" / "image-generation" / "tiny.yaml", overrides)
