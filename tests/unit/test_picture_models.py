"""The picture networks: against another implementation, by published names, as the engine takes them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recaster.core.errors import RecipeError
from recaster.customization.lora import METHOD as LORA
from recaster.data.shards import Shard, write_shard
from recaster.distributed.strategies.protocol import Chained
from recaster.models import efficientnet_lite0, mobilenet_v2, picture_input, resnet, small_cnn
from recaster.models.open_models import Headed
from recaster.models.picture_models import FRESH, build_picture_model

_ARGUMENTS: dict[str, Any] = {
    "labels": ["a", "b", "c"],
    "channels": 3,
    "height": 32,
    "width": 32,
    "classes": 3,
    "hidden": 8,
    "dropout": 0.0,
    "activation": "relu",
    "size": None,
}


def _shake(model: nn.Module) -> nn.Module:
    """Statistics and scales that are not those of a fresh normalisation."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.ndim == 1:
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(noise + 0.5 if name.endswith(("weight", "var")) else noise - 0.5)
    return model.eval()


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(images)
    return found


def test_mobilenet_answers_as_another_implementation() -> None:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    # torchvision's padding and epsilon, which the published weights are for
    config = MobileNetV2Config(num_labels=20, tf_padding=False, layer_norm_eps=1e-5)
    other = _shake(MobileNetV2ForImageClassification(config))
    own = mobilenet_v2.build_model(channels=3, height=64, width=64, classes=20, dropout=0.2).eval()
    names = list(own.state_dict())
    assert names[:2] == ["features.0.0.weight", "features.0.1.weight"] and names[-1] == "classifier.1.bias"
    # Both list their layers in the order of the network.
    own.load_state_dict(dict(zip(names, other.state_dict().values(), strict=True)))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    mean, std = (
        torch.tensor(value).view(1, 3, 1, 1) for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        wanted = other(pixel_values=(images - mean) / std).logits
    assert wanted.std() > 0.1
    torch.testing.assert_close(_logits(own, images), wanted, rtol=1e-4, atol=1e-4)


def test_published_names_are_all_there() -> None:
    """314 tensors and 3,504,872 parameters, as torchvision's mobilenet_v2-b0353104.pth has them."""
    model = mobilenet_v2.build_model(channels=3, height=224, width=224, classes=1000, dropout=0.2)
    state = model.state_dict()
    assert len(state) == 314 and sum(value.numel() for value in model.parameters()) == 3_504_872
    assert state["features.18.0.weight"].shape == (1280, 320, 1, 1)
    assert state["features.17.conv.1.0.weight"].shape == (960, 1, 3, 3)


def test_lite_has_the_published_names() -> None:
    """296 tensors and 4,652,008 parameters, as efficientnet-lite0-57934424.pth has them."""
    model = efficientnet_lite0.build_model(channels=3, height=224, width=224, classes=1000, dropout=0.2)
    state = model.state_dict()
    assert len(state) == 296 and sum(value.numel() for value in model.parameters()) == 4_652_008
    assert state["_blocks.3._depthwise_conv.weight"].shape == (144, 1, 5, 5)
    assert "_blocks.0._expand_conv.weight" not in state and state["_fc.bias"].shape == (1000,)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before", "after"),
    [(8, 3, 2, 0, 1), (7, 3, 2, 1, 1), (8, 5, 2, 1, 2), (8, 5, 1, 2, 2), (9, 1, 1, 0, 0)],
)
def test_lite_pads_as_tensorflow_does(size: int, kernel: int, stride: int, before: int, after: int) -> None:
    """`SAME`: as many as the result of `ceil(size / stride)` needs, the odd one at the end."""
    torch.manual_seed(0)
    layer = efficientnet_lite0.SameConv2d(2, 3, kernel, stride, bias=False)
    images = torch.rand(1, 2, size, size)
    padded = torch.zeros(1, 2, before + size + after, before + size + after)
    padded[..., before : before + size, before : before + size] = images
    with torch.no_grad():
        wanted = torch.nn.functional.conv2d(padded, layer.weight, stride=stride)
        torch.testing.assert_close(layer(images), wanted)
    assert wanted.shape[-1] == -(-size // stride)


def test_pictures_are_brought_into_shape() -> None:
    preprocess = picture_input.Preprocess(size=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    grey = torch.full((2, 1, 20, 30), 0.75)
    assert torch.allclose(preprocess(grey), torch.ones(2, 3, 64, 64), atol=1e-6)
    assert preprocess(torch.rand(1, 3, 100, 200)).shape == (1, 3, 64, 64)
    assert preprocess.state_dict() == {}


@pytest.mark.parametrize("name", FRESH)
def test_networks_are_what_the_engine_takes(name: str) -> None:
    torch.manual_seed(0)
    model = _shake(build_picture_model({**_ARGUMENTS, "architecture": name}, None))
    images = torch.rand(4, 3, 32, 32)
    wanted = _logits(model, images)
    assert wanted.shape == (4, 3)
    assert isinstance(model, Chained)
    links = images
    for link in model.chain():
        links = _logits(model.get_submodule(link), links)
    assert torch.equal(links, wanted)
    inside = {name for link in model.chain() for name, _ in model.get_submodule(link).named_parameters(link)}
    assert inside == {name for name, _ in model.named_parameters()}
    if name != "small-cnn":
        assert isinstance(model, Headed)
        with torch.no_grad():
            assert torch.equal(model.decide(model.encode(images)), wanted)


def test_patches_are_whitened_by_the_training_split(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rough = random.integers(0, 256, (40, 3, 9, 9))
    smooth = np.repeat(np.repeat(rough, 2, 2), 2, 3).astype(
        np.uint8
    )  # neighbours are alike, as in photographs
    shard = Shard(images=smooth, labels=np.zeros(40, dtype=np.int64), ids=[""] * 40, maximum=255.0)
    write_shard(tmp_path, "train", shard)
    arguments = {**_ARGUMENTS, "architecture": "airbench"}
    model, again = (build_picture_model(arguments, None, pictures=tmp_path) for _ in range(2))
    patches: Any = model.patches
    assert torch.equal(patches.weight, again.patches.weight)  # the random state has moved on between them
    seen = torch.nn.functional.conv2d(
        torch.from_numpy(shard.scaled(slice(None))), patches.weight, patches.bias
    )
    values = seen.transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(values[:12], -values[12:], rtol=0, atol=2e-5)
    covariance = (values[:12] @ values[:12].T) / values.shape[1]
    assert values.mean(1).abs().max() < 1e-4  # of no mean, and nearly of unit variance without correlations
    off = covariance - torch.diag(covariance.diagonal())
    assert (
        off.abs().max() < 1e-3 and covariance.diagonal().min() > 0.9 and covariance.diagonal().max() <= 1.001
    )
    kept = patches.weight.clone()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert torch.equal(patches.weight, kept) and "patches.weight" in model.state_dict()


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        ("vit", {"hidden": 192, "layers": 12, "dropout": 0.0}, 5_717_416),  # DeiT-Ti, Touvron et al. 2021
        ("convnext-tiny", {"dropout": 0.1}, 28_589_128),  # torchvision's and the authors' ConvNeXt-T
    ],
)
def test_networks_of_transformers_have_their_papers_sizes(
    name: str, size: dict[str, Any], parameters: int
) -> None:
    labels = [str(number) for number in range(1000)]
    arguments = {**_ARGUMENTS, **size, "architecture": name, "labels": labels, "size": 224}
    model = build_picture_model(arguments, None)
    assert sum(value.numel() for value in model.parameters()) == parameters
    assert _logits(model.eval(), torch.rand(2, 3, 32, 32)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("vit", (32, 48), None),
        ("vit", (28, 28), None),
        ("vit", (32, 32), 100),
        ("convnext-tiny", (8, 8), None),
    ],
)
def test_sides_that_cannot_be_divided_are_named(name: str, shape: tuple[int, int], size: int | None) -> None:
    told = {"architecture": name, "height": shape[0], "width": shape[1], "size": size}
    with pytest.raises(RecipeError, match=r"model\.input_size"):
        build_picture_model({**_ARGUMENTS, "hidden": 32, "layers": 2, **told}, None)


def test_depths_are_those_of_the_paper() -> None:
    """ResNet-20 has 0.27 M parameters for CIFAR-10 (table 6 of He et al.), and ours 1x1 shortcuts beside."""
    sizes = {}
    for depth in (20, 18):
        model = resnet.build_model(channels=3, height=32, width=32, classes=10, dropout=0.0, depth=depth)
        layers = [one for one in model.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
        shortcuts = [one for one in layers if isinstance(one, nn.Conv2d) and one.kernel_size == (1, 1)]
        assert len(layers) - len(shortcuts) == depth
        sizes[depth] = sum(value.numel() for value in model.parameters())
    assert 270_000 < sizes[20] < 275_000 and 11_100_000 < sizes[18] < 11_250_000


def _write_base(folder: Path, *, classes: int, architecture: str = "mobilenet-v2") -> Path:
    folder.mkdir()
    torch.manual_seed(1)
    model = _shake(mobilenet_v2.build_model(channels=3, height=64, width=64, classes=classes, dropout=0.2))
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {"architecture": architecture, "arguments": {"classes": classes}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_base_keeps_its_weights_and_gets_a_head(tmp_path: Path) -> None:
    base = _write_base(tmp_path / "base", classes=11)
    model: Any = build_picture_model({**_ARGUMENTS, "architecture": None, "size": 64}, base)
    assert len(model.report.loaded) == 312 and model.report.ignored == ()
    assert [name.partition(" ")[0] for name in model.report.reinitialised] == [
        "classifier.1.weight",
        "classifier.1.bias",
    ]
    assert model.preprocess.size == 64 and _logits(model.eval(), torch.rand(2, 3, 32, 32)).shape == (2, 3)
    same: Any = build_picture_model({**_ARGUMENTS, "architecture": None, "classes": 11}, base)
    assert same.report.reinitialised == ()
    with pytest.raises(RecipeError, match="at least 32"):
        build_picture_model({**_ARGUMENTS, "architecture": None, "height": 28}, base)
    odd = _write_base(tmp_path / "odd", classes=3, architecture="mlp")
    with pytest.raises(RecipeError, match="no model for pictures"):
        build_picture_model({**_ARGUMENTS, "architecture": None}, odd)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


def test_frozen_normalisation_keeps_its_statistics() -> None:
    model = mobilenet_v2.build_model(channels=3, height=32, width=32, classes=3, dropout=0.0).train()
    images = torch.rand(4, 3, 32, 32)
    for parameter in model.features.parameters():
        parameter.requires_grad_(False)
    kept = _buffers(model)
    torch.testing.assert_close(model(images), _logits(model.eval(), images))
    model.train()(images)
    assert all(torch.equal(value, kept[name]) for name, value in _buffers(model).items())
    model.requires_grad_(True)
    model.train()(images)
    moved = [name for name, value in _buffers(model).items() if not torch.equal(value, kept[name])]
    assert len(moved) == 3 * 52


def test_lora_goes_beside_convolutions_of_one_pixel_and_merges() -> None:
    torch.manual_seed(0)
    model = _shake(mobilenet_v2.build_model(channels=3, height=32, width=32, classes=3, dropout=0.0))
    plain, images = copy.deepcopy(model), torch.rand(4, 3, 32, 32)
    section = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": [], "variant": "lora", "base_bits": None}
    plan = {"customize": {"method": "lora", "lora": section}}
    adapted = LORA.apply(model, plan)
    trained = {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert any("lora_A" in name for name in trained) and any("classifier" in name for name in trained)
    assert all("lora_" in name or "classifier" in name for name in trained)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.05)
    wanted = _logits(adapted.eval(), images)
    assert (wanted - _logits(plain, images)).abs().max() > 1e-3
    merged = LORA.merge(adapted, plan)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(_logits(merged, images), wanted, rtol=1e-4, atol=1e-4)


def test_small_pictures_are_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="smaller than 8x8"):
        resnet.build_model(channels=1, height=4, width=8, classes=2, dropout=0.0, depth=20)
    with pytest.raises(ValueError, match="at least 32"):
        mobilenet_v2.build_model(channels=1, height=28, width=28, classes=2, dropout=0.0)
    with pytest.raises(ValueError, match="multiple of 4"):
        small_cnn.build_model(
            channels=1, height=8, width=8, classes=2, hidden=6, dropout=0.0, activation="relu"
        )
