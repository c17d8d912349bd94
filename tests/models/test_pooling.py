"""Global statistics of feature maps against NumPy, and their slope against finite differences."""

from __future__ import annotations

import pytest
import torch

from iqa_robust.models.pooling import channel_means, mean_and_std


def test_values_are_numpys() -> None:
    features = torch.rand(2, 3, 5, 7)
    pooled = mean_and_std(features)
    array = features.numpy()
    torch.testing.assert_close(pooled[:, :3], torch.from_numpy(array.mean((2, 3))))
    expected = torch.from_numpy((array.var((2, 3)) + 1e-5) ** 0.5)  # the documented constant
    torch.testing.assert_close(pooled[:, 3:], expected)


def test_slope_is_that_of_finite_differences() -> None:
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mean_and_std, features)


def test_means_alone_are_the_same_with_the_same_slope() -> None:
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(channel_means(features), mean_and_std(features)[:, :3])
    assert torch.autograd.gradcheck(channel_means, features)
    rounded = features.detach().bfloat16().requires_grad_()
    channel_means(rounded).sum().backward()
    assert rounded.grad is not None
    assert channel_means(rounded).dtype is torch.float32
    torch.testing.assert_close(rounded.grad, torch.full_like(rounded, 1 / 20))


def test_slope_is_finite_where_a_channel_is_constant() -> None:
    constant = torch.ones(1, 2, 4, 4, requires_grad=True)
    mean_and_std(constant).sum().backward()
    assert constant.grad is not None
    assert bool(torch.isfinite(constant.grad).all())


def test_sums_of_bfloat16_features_are_float32() -> None:
    features = (torch.rand(1, 2, 64, 64) + 10).bfloat16()
    pooled = mean_and_std(features)
    assert pooled.dtype is torch.float32
    # Summed in bfloat16, whose spacing at 10 is 1/16, the mean would be off by some hundredths.
    torch.testing.assert_close(pooled[0, :2], features[0].double().mean((1, 2)).float(), rtol=1e-6, atol=0)


def test_a_second_derivative_is_refused_instead_of_wrong() -> None:
    features = torch.rand(1, 1, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(mean_and_std(features).square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_of_bfloat16_features_are_those_of_float64(layout: torch.memory_format) -> None:
    features = torch.randn(3, 20, 33, 17, generator=torch.Generator().manual_seed(0)).relu().bfloat16()
    features = features.to(memory_format=layout).requires_grad_()
    exact = features.detach().double().requires_grad_()
    pooled, wanted = mean_and_std(features), mean_and_std(exact)
    assert pooled.dtype is torch.float32
    torch.testing.assert_close(pooled.double(), wanted, rtol=1e-5, atol=1e-6)  # float32 sums of 561 values
    weights = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad(pooled, features, weights)
    (of_exact,) = torch.autograd.grad(wanted, exact, weights.double())
    # Two coefficients and a sum in bfloat16, which keeps 8 bits; where they cancel, what is left is relative to them.
    torch.testing.assert_close(slope.double(), of_exact, rtol=2**-6, atol=2**-7 * float(of_exact.abs().max()))
