"""Unsharp masking: SciPy's blur in the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from iqa_robust.defenses.filtering.unsharp import Unsharp
from iqa_robust.errors import ContractError
from iqa_robust.models.base import wrap
from iqa_robust.testing.pictures import pictures


@pytest.mark.parametrize(("amount", "sigma"), [(1.0, 1.0), (0.4, 2.0)])
def test_equals_the_formula_with_scipy(amount: float, sigma: float) -> None:
    x = pictures(2, 20, 27)
    image = x.double().numpy()
    blurred = ndimage.gaussian_filter(image, (0, 0, sigma, sigma), mode="mirror", truncate=4.0)
    expected = np.clip(image + amount * (image - blurred), 0, 1)
    assert np.allclose(Unsharp(amount=amount, sigma=sigma).purify(x).numpy(), expected, rtol=0, atol=1e-6)  # float32


def test_flat_white_and_black_have_a_slope_and_overshoots_have_none() -> None:
    x = torch.ones(1, 3, 9, 24)
    x[..., :12] = 0
    x.requires_grad_(True)
    y = Unsharp().purify(x)
    for column, alive in [(1, True), (11, False), (12, False), (22, True)]:
        (slope,) = torch.autograd.grad(y[0, 0, 4, column], x, retain_graph=True)
        assert bool(slope.any()) == alive


def test_needs_the_room_of_its_blur() -> None:
    assert Unsharp(sigma=1.5).wrap(wrap(lambda x: x.mean(dim=(1, 2, 3)))).info.min_size == 7


def test_refuses() -> None:
    with pytest.raises(ContractError, match=r"^Unsharp: expected amount to be a finite number > 0, got 0\.$"):
        Unsharp(amount=0)
    with pytest.raises(ContractError, match=r"^Unsharp: expected sigma to be a finite number > 0, got '1'\.$"):
        Unsharp(sigma="1")  # type: ignore[arg-type]
