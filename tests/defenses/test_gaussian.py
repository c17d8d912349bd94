"""Gaussian: SciPy's filter and its exact gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from iqa_robust.defenses.filtering.gaussian import Gaussian
from iqa_robust.errors import ContractError
from iqa_robust.models.base import ModelInfo, check_inputs, wrap


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("sigma", [0.3, 0.625, 1, 1.7, 2.5])
def test_equals_scipy(sigma: float) -> None:
    x = images(2, 3, 23, 16)
    expected = ndimage.gaussian_filter(x.numpy().astype(np.float64), sigma=(0, 0, sigma, sigma), mode="mirror")
    # float32 sums of some twenty products of numbers below 1
    assert np.abs(Gaussian(sigma=sigma).purify(x).numpy() - expected).max() < 1e-6


def test_saturated_regions_stay_in_range_and_keep_their_slope() -> None:
    x = torch.ones(1, 3, 40, 40, requires_grad=True)
    for sigma in np.linspace(0.4, 4, 37):
        purified = Gaussian(sigma=float(sigma)).purify(x)
        assert purified.max() <= 1
        (slope,) = torch.autograd.grad(purified.sum(), x)
        # In the middle a pixel's weights add up to 1; near the borders mirroring counts some more often.
        assert slope[0, :, 20, 20].sub(1).abs().max() < 1e-5


def test_the_gradient_is_the_filter_itself() -> None:
    x = images(1, 3, 31, 31).requires_grad_(True)
    (slope,) = torch.autograd.grad(Gaussian(sigma=1.5).purify(x)[0, 2, 15, 15], x)
    impulse = np.zeros((31, 31))
    impulse[15, 15] = 1
    assert np.abs(slope[0, 2].numpy() - ndimage.gaussian_filter(impulse, 1.5)).max() < 1e-7
    assert slope[0, :2].abs().sum() == 0


def test_refuses_an_image_smaller_than_half_the_filter() -> None:
    with pytest.raises(ContractError, match=r"Gaussian: expected images of at least 9 pixels a side .*, got 8 x 30\."):
        Gaussian(sigma=2).purify(images(1, 3, 8, 30))


@pytest.mark.parametrize("sigma", [0, -1.0, math.inf, math.nan, True, "1"])
def test_refuses_a_sigma_that_is_no_width(sigma: object) -> None:
    with pytest.raises(ContractError, match=r"Gaussian: expected sigma to be a finite number > 0, got"):
        Gaussian(sigma=sigma)  # type: ignore[arg-type]


def test_the_wrapped_model_needs_images_the_filter_fits() -> None:
    model = wrap(lambda x: x.mean(dim=(1, 2, 3)))
    defended = Gaussian(sigma=2).wrap(model)
    assert (defended.info.min_size, model.info.min_size) == (9, 1)
    assert defended(images(1, 3, 9, 9)).shape == (1,)
    with pytest.raises(ContractError, match=r"^images: the model needs at least 9 pixels a side, got 8 x 30\.$"):
        check_inputs(defended, images(1, 3, 8, 30), None)
    large = wrap(lambda x: x.mean(dim=(1, 2, 3)), ModelInfo(min_size=32))
    assert Gaussian(sigma=2).wrap(large).info.min_size == 32
