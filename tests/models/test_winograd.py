"""Convolutions with fewer multiplications against torch's own in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from iqa_robust.models import winograd
from iqa_robust.models.kernels import Kernel, Like
from iqa_robust.models.prepared.convolutions import FrozenConvolution
from iqa_robust.models.winograd import Winograd

ERROR = 1e-4
"""Sums of values reach 100 times one of them before they cancel, in the corner of a tile: 2^-24 of that is 6e-6, and
products of 8 or 16 channels are summed."""


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(
    images=st.integers(1, 5),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    at_once=st.sampled_from([1, 7, 40, winograd.AT_ONCE]),
    bias=st.booleans(),
    relu=st.booleans(),
    summed=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_results_are_those_of_the_plain_sum(
    images: int,
    height: int,
    width: int,
    padding: tuple[int, int],
    at_once: int,
    bias: bool,
    relu: bool,
    summed: bool,
) -> None:
    height, width = (max(side, 3 - 2 * around) for side, around in zip((height, width), padding, strict=True))
    x = _random(images, 8, height, width, seed=0).contiguous(memory_format=torch.channels_last)
    weight, own = _random(12, 8, 3, 3, seed=1) / 72**0.5, _random(12, seed=2) if bias else None
    wanted = F.conv2d(x.double(), weight.double(), None if own is None else own.double(), padding=padding)
    added = _random(*wanted.shape, seed=3) if summed else None
    wanted = wanted if added is None else wanted + added
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "AT_ONCE", at_once)  # tiles of several images, of one image, of a part of one
        found = Winograd(weight, own, relu=relu)(x, padding, added)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), wanted.relu() if relu else wanted, rtol=ERROR, atol=ERROR)


@pytest.mark.parametrize("relu", [False, True])
def test_frozen_convolutions_take_it_in_both_directions(relu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[Any, ...]] = []

    def pays(*call: Any) -> bool:
        taken.append(call)
        return True

    monkeypatch.setattr(Winograd, "pays", pays)
    layer = nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    frozen, exact = FrozenConvolution(layer, torch.float32, relu=relu), layer.double()
    x = _random(2, 8, 12, 10, seed=1)
    leaf, exact_leaf = x.clone().requires_grad_(), x.double().requires_grad_()
    made, wanted = frozen(leaf), exact(exact_leaf)
    weights = _random(*made.shape, seed=2)
    (slope,) = torch.autograd.grad(made, leaf, weights)
    (expected,) = torch.autograd.grad(wanted, exact_leaf, weights.double() * (made > 0 if relu else 1))
    torch.testing.assert_close(made.double(), wanted.relu() if relu else wanted, rtol=ERROR, atol=ERROR)
    torch.testing.assert_close(slope.double(), expected, rtol=ERROR, atol=ERROR)
    assert taken == [(8, 16, 12, 10), (16, 8, 12, 10)]


@pytest.mark.parametrize(
    "like",
    [
        pytest.param(Like((2, 2), (1, 1), (1, 1), 1), id="stride"),
        pytest.param(Like((1, 1), (1, 1), (2, 2), 1), id="dilation"),
        pytest.param(Like((1, 1), (1, 1), (1, 1), 2), id="groups"),
    ],
)
def test_other_convolutions_do_not_take_it(like: Like, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Winograd, "pays", lambda *call: True)
    weight = _random(16, 8 // like.groups, 3, 3, seed=0)
    x = _random(2, 8, 12, 10, seed=1)
    wanted = F.conv2d(x, weight, None, *like)
    torch.testing.assert_close(Kernel(weight, None, like)(x), wanted, rtol=1e-5, atol=1e-5)


def test_it_is_taken_where_it_was_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "HAS_MKL", True)
    assert Winograd.pays(128, 128, 28, 28)
    assert Winograd.pays(512, 512, 7, 7)
    assert not Winograd.pays(16, 64, 55, 55)  # sums take longer than products
    assert not Winograd.pays(64, 64, 56, 56)  # a gain with one thread, a loss with two
    assert not Winograd.pays(512, 512, 4, 4)  # a tile per image: to read the weights takes longer
    monkeypatch.setattr(winograd, "HAS_MKL", False)
    assert not Winograd.pays(128, 128, 28, 28)


@pytest.mark.parametrize("side", [7, 14, 28])
def test_results_hang_on_no_other_image(side: int) -> None:
    way = Winograd(_random(16, 8, 3, 3, seed=1), _random(16, seed=2), relu=True)
    x = _random(5, 8, side, side, seed=0)
    alone = torch.cat([way(image, (1, 1)) for image in x.split(1)])
    torch.testing.assert_close(way(x, (1, 1)), alone, rtol=1e-6, atol=1e-6)  # products in the same order
    assert way(x[:0], (1, 1)).shape == (0, 16, side, side)


@pytest.mark.parametrize("side", [8, 7])
@pytest.mark.parametrize("images", [1, 2])
def test_others_may_edit_the_results(side: int, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Winograd, "pays", lambda *call: True)
    layer = nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    leaf = _random(images, 8, side, side, seed=1).requires_grad_()
    plain, edited = (
        torch.autograd.grad(made.sum(), leaf)[0]
        for made in (2 * layer(leaf), FrozenConvolution(layer, torch.float32)(leaf).mul_(2))
    )
    torch.testing.assert_close(edited, plain, rtol=ERROR, atol=ERROR)


def test_slopes_are_float32_under_autocast_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Winograd, "pays", lambda *call: True)
    layer = nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    leaf = _random(2, 8, 12, 10, seed=1).requires_grad_()
    (wanted,) = torch.autograd.grad(layer(leaf).sum(), leaf)
    made = FrozenConvolution(layer, torch.float32)(leaf).sum()
    with torch.autocast("cpu", torch.bfloat16):
        (slope,) = torch.autograd.grad(made, leaf)
    torch.testing.assert_close(slope, wanted, rtol=ERROR, atol=ERROR)
