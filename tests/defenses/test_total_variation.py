"""Total variation: scikit-image's iteration, step for step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_tv_chambolle

from iqa_robust.defenses.filtering.total_variation import TotalVariation
from iqa_robust.errors import ContractError
from iqa_robust.testing.pictures import pictures


@pytest.mark.parametrize(("weight", "iterations"), [(0.05, 1), (0.1, 7), (0.02, 40), (0.3, 25)])
def test_equals_scikit_image(weight: float, iterations: int) -> None:
    x = pictures(2, 23, 31)
    found = TotalVariation(weight=weight, iterations=iterations).purify(x)
    for image, denoised in zip(x, found, strict=True):
        expected = denoise_tv_chambolle(
            image.permute(1, 2, 0).double().numpy(),
            weight=weight,
            eps=0,
            max_num_iter=iterations + 1,  # its last one only applies what the others found
            channel_axis=-1,
        )
        # float32 against float64, over 40 steps that contract
        assert np.allclose(denoised.permute(1, 2, 0).numpy(), expected, rtol=0, atol=2e-6)


def test_many_steps_lower_the_energy_it_names() -> None:
    x = pictures(1, 24, 24)

    def energy(y: torch.Tensor, weight: float) -> float:
        down, right = torch.zeros_like(y), torch.zeros_like(y)
        down[:, :, :-1], right[..., :-1] = y.diff(dim=2), y.diff(dim=3)
        return float((y - x).square().sum() / 2 + weight * (down**2 + right**2).sqrt().sum())

    y = TotalVariation(weight=0.1, iterations=200).purify(x)
    assert energy(y, 0.1) < 0.9 * energy(x, 0.1)
    for scale in (0.97, 1.03):  # near the minimum, no way along the line from the input is better
        assert energy(y, 0.1) <= energy(x + scale * (y - x), 0.1)


def test_a_flat_black_image_has_a_slope_and_stays() -> None:
    x = torch.zeros(1, 3, 6, 5, requires_grad=True)
    y = TotalVariation().purify(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(y, torch.zeros_like(y))
    assert torch.allclose(slope, torch.ones_like(slope), atol=1e-5)  # the mean is kept: columns sum to 1


def test_takes_a_single_pixel() -> None:
    x = torch.full((1, 3, 1, 1), 0.3)
    assert torch.equal(TotalVariation().purify(x), x)


def test_refuses() -> None:
    with pytest.raises(ContractError, match=r"^TotalVariation: expected weight to be a finite number > 0, got -1\.$"):
        TotalVariation(weight=-1)
    with pytest.raises(
        ContractError, match=r"^TotalVariation: expected iterations to be a whole number >= 1, got 2\.5"
    ):
        TotalVariation(iterations=2.5)  # type: ignore[arg-type]
