"""Median: SciPy's filter, with the gradient at the pixel that is the median."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from iqa_robust.defenses.filtering.median import Median
from iqa_robust.errors import ContractError
from iqa_robust.models.base import ModelInfo, check_inputs, wrap


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (9, 14), (31, 20)])
def test_equals_scipy(size: int, height: int, width: int) -> None:
    x = images(2, 3, height, width)
    expected = ndimage.median_filter(x.numpy(), size=(1, 1, size, size), mode="mirror")
    assert np.array_equal(Median(size=size).purify(x).numpy(), expected)  # a median is one of its values: exact


def test_the_gradient_goes_to_the_median_pixel() -> None:
    x = images(1, 3, 7, 8).requires_grad_(True)  # distinct values: no tie
    purified = Median().purify(x)
    (slope,) = torch.autograd.grad(purified[0, 1, 3, 4], x)
    value = x.detach()[0, 1] == purified.detach()[0, 1, 3, 4]
    assert value.sum() == 1
    assert torch.equal(slope[0, 1], value.float())
    assert slope[0, [0, 2]].abs().sum() == 0


def test_a_tie_still_has_a_slope_of_one() -> None:
    x = torch.full((1, 3, 5, 5), 0.5, requires_grad=True)
    (slope,) = torch.autograd.grad(Median().purify(x)[0, 0, 2, 2], x)
    assert slope.sum() == 1
    assert (slope >= 0).all()


def test_refuses_an_image_smaller_than_half_a_window() -> None:
    with pytest.raises(ContractError, match=r"Median: expected images of at least 3 pixels a side .*, got 2 x 9\."):
        Median(size=5).purify(images(1, 3, 2, 9))


@pytest.mark.parametrize("size", [1, 2, 4, -3, 3.0, True])
def test_refuses_a_size_that_has_no_center(size: object) -> None:
    with pytest.raises(ContractError, match=r"Median: expected size to be an odd whole number >= 3, got"):
        Median(size=size)  # type: ignore[arg-type]


def test_the_wrapped_model_needs_images_the_filter_fits() -> None:
    model = wrap(lambda x: x.mean(dim=(1, 2, 3)))
    defended = Median(size=7).wrap(model)
    assert (defended.info.min_size, model.info.min_size) == (4, 1)
    assert defended(images(1, 3, 4, 4)).shape == (1,)
    with pytest.raises(ContractError, match=r"^images: the model needs at least 4 pixels a side, got 3 x 30\.$"):
        check_inputs(defended, images(1, 3, 3, 30), None)
    large = wrap(lambda x: x.mean(dim=(1, 2, 3)), ModelInfo(min_size=32))
    assert Median(size=7).wrap(large).info.min_size == 32
