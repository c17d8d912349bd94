"""Convolutions in bfloat16 and float32 against torch's own in float64, and where a ReLU may be joined to them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from iqa_robust import models
from iqa_robust.models import kernels
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.kernels import Like
from iqa_robust.models.prepared.convolutions import FrozenConvolution
from iqa_robust.models.prepared.image_slopes import ImageSlope
from iqa_robust.models.prepared.residual import ResidualBlock
from iqa_robust.models.prepared.twin import prepare
from iqa_robust.models.trunk_regressor import TrunkNetwork

ITS_OWN = torch.ops.mkldnn._is_mkldnn_bf16_supported()
"""Whether oneDNN convolves in bfloat16 on this processor. On others PyTorch has a way of its own, which rounds partial
sums as well; `--precision auto` stays in float32 there."""
ROUNDING = 2**-8 if ITS_OWN else 2**-5
"""bfloat16 keeps 8 bits; a result of order one is rounded once, or twice where the bias is added to a rounded sum."""
ERRORS = {torch.bfloat16: ROUNDING, torch.float32: 1e-5}
"""float32 sums of 72 to 144 products of order one, in another order than float64's."""
kinds = pytest.mark.parametrize("kind", ERRORS)

SHAPES = [
    pytest.param({"kernel_size": 3, "padding": 1}, id="as-usual"),
    pytest.param({"kernel_size": 3, "stride": 2, "padding": 1}, id="stride"),
    pytest.param({"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False}, id="dilation"),
    pytest.param({"kernel_size": 3, "padding": 1, "groups": 4}, id="groups"),
    pytest.param({"kernel_size": (1, 5), "padding": (0, 2)}, id="one-row"),
    pytest.param({"kernel_size": 1, "padding": 2}, id="more-padding-than-kernel"),
]


@pytest.fixture(params=["ordered weights", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to convolve, on processors that have both."""
    if request.param == "plain":
        monkeypatch.setattr(kernels, "_orders_weights", lambda kind: False)


def _layer(inputs: int, **shape: object) -> nn.Conv2d:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Conv2d(inputs, 16, **shape).requires_grad_(False)
        layer.weight.copy_(layer.weight.bfloat16())  # what is left is the rounding of maps
        return layer


def _maps(channels: int) -> torch.Tensor:
    return torch.randn(2, channels, 12, 10, generator=torch.Generator().manual_seed(1)).bfloat16()


@pytest.mark.usefixtures("way")
@kinds
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_slopes_are_those_of_float64(shape: dict[str, object], relu: bool, kind: torch.dtype) -> None:
    layer, x, error = _layer(8, **shape), _maps(8).to(kind), ERRORS[kind]
    rounded, exact = FrozenConvolution(layer, kind, relu=relu), layer.double()
    leaf, exact_leaf = x.clone().requires_grad_(), x.double().requires_grad_()
    for _ in range(2):  # the second time with the weights as the first one ordered them
        made, wanted = rounded(leaf), exact(exact_leaf)
        wanted = wanted.relu() if relu else wanted
        torch.testing.assert_close(made.double(), wanted, rtol=error, atol=error)
        weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(2)).to(kind)
        kept = weights.double() * (made > 0 if relu else 1)  # by the rounded values: rounding may move one to zero
        (slope,) = torch.autograd.grad(made, leaf, weights)
        (found,) = torch.autograd.grad(exact(exact_leaf), exact_leaf, kept)
        torch.testing.assert_close(slope.double(), found, rtol=error, atol=error)


@pytest.mark.usefixtures("way")
@kinds
def test_a_sum_before_the_relu_has_its_own_slope(kind: torch.dtype) -> None:
    layer, x, error = _layer(16, kernel_size=3, padding=1), _maps(16).to(kind), ERRORS[kind]
    added = torch.randn(x.shape, generator=torch.Generator().manual_seed(4)).to(kind)
    leaves, exact_leaves = ([value.to(each).requires_grad_() for value in (x, added)] for each in (kind, torch.double))
    made = FrozenConvolution(layer, kind, relu=True)(*leaves)
    wanted = (layer.double()(exact_leaves[0]) + exact_leaves[1]).relu()
    torch.testing.assert_close(made.double(), wanted, rtol=error, atol=error)
    weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(2)).to(kind)
    slopes = torch.autograd.grad(made, leaves, weights)
    exact = torch.autograd.grad(layer(exact_leaves[0]), exact_leaves[0], weights.double() * (made > 0))
    torch.testing.assert_close(slopes[0].double(), exact[0], rtol=error, atol=error)
    assert torch.equal(slopes[1], weights * (made > 0))


@pytest.mark.usefixtures("way")
@kinds
def test_other_sizes_and_batches_follow_the_first(kind: torch.dtype) -> None:
    layer, error = _layer(8, kernel_size=3, padding=1), ERRORS[kind]
    rounded = FrozenConvolution(layer, kind)
    for shape in ((1, 8, 6, 6), (5, 8, 31, 9), (2, 8, 12, 10)):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(3)).to(kind)
        wanted = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
        torch.testing.assert_close(rounded(x).double(), wanted, rtol=error, atol=error)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(7, 2, 3), (3, 2, 0), (3, 1, 1), (16, 16, 0), (5, 3, 2), (4, 2, 5), ((3, 6), (1, 4), (0, 2)), (2, 3, 0)],
)
@pytest.mark.parametrize("size", [(32, 32), (33, 38), (17, 47)])
@kinds
def test_slopes_at_images_are_those_of_float64(
    kernel: Any, stride: Any, padding: Any, size: tuple[int, int], kind: torch.dtype
) -> None:
    layer = nn.Conv2d(3, 128, kernel, stride, padding, bias=False).requires_grad_(False)
    layer.weight.copy_((layer.weight * 8).round() / 8)  # sums are exact, whatever their order
    rounded = FrozenConvolution(layer, kind)
    assert rounded.at_image is not None
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(6)).requires_grad_()
    made = rounded(x)
    weights = torch.randint(-2, 3, made.shape, generator=torch.Generator().manual_seed(7)).to(kind)
    (found,) = torch.autograd.grad(made, x, weights)
    exact = x.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(layer.double()(exact), exact, weights.double())
    assert found.dtype is torch.float32
    assert found.is_contiguous()
    assert torch.equal(found, wanted.to(kind).float())  # rounded once


def test_a_convolution_of_images_is_made_on_any_device() -> None:
    with FakeTensorMode():
        layer = nn.Conv2d(3, 64, 7, 2, 3, device="cuda")
        made = FrozenConvolution(layer, torch.bfloat16)
        assert {tensor.device.type for tensor in made.buffers()} == {"cuda"}
        assert made.at_image is not None


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 10), st.integers(9, 40), st.integers(1, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_blocks_of_pixels_have_their_places(
    kernel: int, stride: int, padding: int, side: int, colors: int, ordered: bool
) -> None:
    generator = torch.Generator().manual_seed(kernel + 10 * stride)
    weight = torch.randint(-3, 4, (4, colors, kernel, 2), generator=generator).bfloat16()
    like = Like((stride, 1), (padding, 1), (1, 1), 1)
    x = torch.zeros(2, colors, side, 12, dtype=torch.double, requires_grad=True)
    made = F.conv2d(x, weight.double(), None, like.stride, like.padding)
    slope = torch.randint(-3, 4, made.shape, generator=generator)
    (wanted,) = torch.autograd.grad(made, x, slope.double())
    with pytest.MonkeyPatch.context() as patch:
        if not ordered:
            patch.setattr(kernels, "_orders_weights", lambda kind: False)
        found = ImageSlope(weight, like)(slope.bfloat16(), x.shape)
    assert torch.equal(found, wanted.bfloat16().float())


@pytest.mark.usefixtures("way")
def test_an_image_is_seen_to_the_sixteenth_bit() -> None:
    layer = _layer(3, kernel_size=1, bias=False)
    layer.weight.fill_(1 / 4)
    rounded = FrozenConvolution(layer, torch.bfloat16)
    x = torch.full((1, 3, 4, 4), 0.9)
    # 0.9 in bfloat16 is 0.8984; the sum of the three is rounded once more, to 8 bits.
    moved = (rounded(x + 1 / 255) - rounded(x)).float()
    assert float(rounded(x)[0, 0, 0, 0]) == pytest.approx(0.675, rel=ROUNDING)
    assert bool((moved > 0).all())
    layer.weight.fill_(0.3)  # .30078 in bfloat16, a quarter of a percent off
    many = FrozenConvolution(layer, torch.bfloat16)(
        torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    )
    exact = layer(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5)))
    assert float(many.double().mean()) == pytest.approx(float(exact.double().mean()), rel=1e-4)  # roundings cancel
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(rounded(leaf).sum(), leaf)
    assert slope.dtype is torch.float32
    torch.testing.assert_close(slope, torch.full_like(x, 4.0))  # 16 outputs of weight 1/4


def test_a_copy_and_an_empty_batch_after_the_weights_were_ordered() -> None:
    rounded, x = FrozenConvolution(_layer(8, kernel_size=3, padding=1), torch.bfloat16), _maps(8)
    made = rounded(x)
    assert torch.equal(copy.deepcopy(rounded)(x), made)
    assert torch.equal(rounded.weight, _layer(8, kernel_size=3, padding=1).weight.bfloat16())
    assert rounded(x[:0]).shape == (0, 16, 12, 10)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_relu_is_joined_only_where_nothing_else_reads_the_convolution(precision: str) -> None:
    class Network(nn.Module):
        def __init__(self, *, shared: bool) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3)
            self.relu = nn.ReLU()
            self.shared = shared

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = self.first(x)
            return (self.relu(made) + (made if self.shared else 0)).float().mean(dim=(1, 2, 3))

    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for shared in (False, True):
        torch.manual_seed(0)
        model = models.wrap(Network(shared=shared))
        twin = prepare(model, precision, x[:1])
        (layer,) = [module for module in twin.modules() if isinstance(module, FrozenConvolution)]
        assert layer.ahead.relu is not shared
        torch.testing.assert_close(twin(x), model(x), rtol=0.02, atol=0.002)


def test_padding_of_another_kind_stays_with_torch() -> None:
    for layer in (
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(3, 3, 3, groups=3),
    ):
        assert not FrozenConvolution.fits(layer)
        x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        first = nn.Identity() if layer.in_channels == 3 else nn.Conv2d(3, 8, 1)
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(layer.out_channels, 1), nn.Flatten(0)]
        model = models.wrap(nn.Sequential(first, layer, *head))
        torch.testing.assert_close(prepare(model, "bf16", x[:1])(x), model(x), rtol=0.02, atol=0.005)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_blocks_of_residual_networks_are_unfolded_and_keep_scores_and_slopes(backbone: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TrunkNetwork(backbone=backbone).eval()
        nn.init.normal_(network.head.weight, std=1e-3)
    model, x = models.wrap(network, ModelInfo(score_range=(0.0, 100.0))), _images()
    twin = prepare(model, "bf16", x[:1])
    blocks = [module for module in twin.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == {"resnet18": 8, "resnet50": 16}[backbone]
    assert all(isinstance(block.last, FrozenConvolution) and block.last.ahead.relu for block in blocks)
    exact, rounded = (_slope(each, x).flatten(1) for each in (model, twin))
    # Every layer rounds to 8 bits; the direction turns by some 20 degrees over fifty of them.
    assert bool((torch.cosine_similarity(exact, rounded) > 0.9).all())
    torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0.5 if ITS_OWN else 2.0)  # of a range of 100


def _images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _slope(model: IQAModel, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(model(leaf).sum(), leaf)[0]
