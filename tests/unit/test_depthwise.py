"""Quickened depthwise convolutions: gradients to the second are right whatever the shape."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from recaster.models.efficientnet_lite0 import SameConv2d
from recaster.models.mobilenet_v2 import build_model
from recaster.training.depthwise import convolve_depthwise, quicken_depthwise

_SHAPES = [
    pytest.param(
        kernel, stride, padding, id=f"{kernel}x{kernel}-stride{stride}-padding{padding[0]}-{padding[1]}"
    )
    for kernel, stride, padding in [
        (3, 2, (1, 1)),
        (3, 2, (0, 0)),
        (5, 1, (2, 2)),
        (5, 2, (0, 0)),
        (5, 1, (2, 0)),
        (7, 1, (3, 3)),
        (4, 1, (1, 1)),
    ]
]


def _pair(layer: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    quick = copy.deepcopy(layer)
    assert quicken_depthwise(quick) == 1
    return layer, quick


def _gradients(layer: nn.Module, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_()
    result = layer(images)
    weights = torch.arange(result.numel()).reshape(result.shape).cos()
    (result.float() * weights).sum().backward()
    found = [result.detach(), images.grad, *(parameter.grad for parameter in layer.parameters())]
    return [value for value in found if value is not None]


@pytest.mark.parametrize(("kernel", "stride", "padding"), _SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["rows", "last"])
def test_in_bf16_gradients_are_no_further_from_the_truth_than_torch_s(
    kernel: int, stride: int, padding: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    layer, quick = _pair(nn.Conv2d(16, 16, kernel, stride, padding, groups=16))
    images = torch.randn(4, 16, 11, 9).contiguous(memory_format=layout)
    truth = _gradients(copy.deepcopy(layer).double(), images.double())
    with torch.autocast("cpu", torch.bfloat16):
        own, found = _gradients(layer, images), _gradients(quick, images)
    assert found[0].dtype == torch.bfloat16
    for right, one, other in zip(truth, own, found, strict=True):
        assert (other - right).norm() <= 1.1 * (one - right).norm() + 1e-6


@pytest.mark.parametrize(("kernel", "stride", "padding"), _SHAPES)
def test_first_and_second_derivatives_are_right(kernel: int, stride: int, padding: tuple[int, int]) -> None:
    torch.manual_seed(0)
    shapes = [(2, 2, 7, 6), (2, 1, kernel, kernel), (2,)]
    given = [torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in shapes]

    def convolve(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return convolve_depthwise(images, weight, bias, stride, padding)

    wanted = nn.functional.conv2d(given[0], given[1], given[2], stride, padding, groups=2)
    assert torch.equal(convolve(*given), wanted)
    assert torch.autograd.gradcheck(convolve, given)
    assert torch.autograd.gradgradcheck(convolve, given)


@pytest.mark.parametrize(("kernel", "stride", "padding"), _SHAPES)
def test_in_float32_nothing_changes(kernel: int, stride: int, padding: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer, quick = _pair(nn.Conv2d(16, 16, kernel, stride, padding, groups=16))
    images = torch.randn(4, 16, 11, 9)
    assert all(map(torch.equal, _gradients(layer, images), _gradients(quick, images)))


def test_a_layer_that_pads_in_its_own_way_goes_on_doing_so() -> None:
    torch.manual_seed(0)
    layer, quick = _pair(SameConv2d(8, 8, 5, 2, groups=8, bias=False))
    images = torch.randn(2, 8, 7, 6)
    truth = _gradients(copy.deepcopy(layer).double(), images.double())
    with torch.autocast("cpu", torch.bfloat16):
        own, found = _gradients(layer, images), _gradients(quick, images)
    assert torch.equal(own[0], found[0])
    for right, one, other in zip(truth, own, found, strict=True):
        assert (other - right).norm() <= 1.1 * (one - right).norm() + 1e-6


def _penalty_gradient(layer: nn.Module, images: Tensor) -> Tensor:
    """Of the filter, by the squared gradient of the pictures: what the R1 penalty needs."""
    images = images.clone().requires_grad_()
    total = layer(images).float().square().sum()
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    (found,) = torch.autograd.grad(gradient.square().sum(), [next(layer.parameters())])
    return found


@pytest.mark.parametrize(("kernel", "stride", "padding"), _SHAPES)
def test_in_bf16_a_penalty_on_gradients_is_near_the_truth(
    kernel: int, stride: int, padding: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer, quick = _pair(nn.Conv2d(16, 16, kernel, stride, padding, groups=16, bias=False))
    images = torch.randn(4, 16, 11, 9)
    truth = _penalty_gradient(copy.deepcopy(layer).double(), images.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = _penalty_gradient(quick, images)
    assert (found - truth).norm() <= 0.02 * truth.norm()


def test_what_is_frozen_gets_no_gradient() -> None:
    quick = _pair(nn.Conv2d(4, 4, 5, groups=4))[1].requires_grad_(requires_grad=False)
    images = torch.randn(1, 4, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        quick(images).sum().backward()
    assert images.grad is not None and quick.weight.grad is None


def test_only_depthwise_layers_that_gain_are_changed() -> None:
    others: list[nn.Module] = [
        nn.Conv2d(4, 4, 3, groups=4),  # quick as it is
        nn.Conv2d(4, 8, 5, groups=4),
        nn.Conv2d(4, 4, 5, groups=2),
        nn.Conv2d(4, 4, 5),
        nn.Conv2d(1, 1, 5),
        nn.Conv2d(4, 4, 5, groups=4, dilation=2),
        nn.Conv2d(4, 4, 5, groups=4, padding=2, padding_mode="reflect"),
        nn.Conv2d(4, 4, 5, groups=4, padding="same"),
        nn.Conv2d(4, 4, (5, 3), groups=4),
        nn.ConvTranspose2d(4, 4, 5, groups=4),
    ]
    assert quicken_depthwise(nn.ModuleList(others)) == 0


def test_a_network_keeps_its_names_and_its_answers() -> None:
    torch.manual_seed(0)
    network = build_model(channels=3, height=32, width=32, classes=3, dropout=0.0).eval()
    quick = copy.deepcopy(network)
    assert quicken_depthwise(quick) == 4
    assert list(quick.state_dict()) == list(network.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(quick(images), network(images))
    assert torch.equal(copy.deepcopy(quick)(images), network(images))
