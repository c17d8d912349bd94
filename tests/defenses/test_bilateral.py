"""Bilateral: the definition in plain loops, and the part of scikit-image's filter that follows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_bilateral

from iqa_robust.defenses.filtering.bilateral import Bilateral
from iqa_robust.errors import ContractError
from iqa_robust.testing.pictures import pictures

PARAMETERS = [(1, 0.1, 1.0), (2, 0.05, 1.5), (3, 0.3, 4.0)]


def by_definition(image: np.ndarray, radius: int, sigma_color: float, sigma_space: float) -> np.ndarray:
    """(H, W, 3) float64, one pixel pair after the other."""
    height, width, _ = image.shape
    out = np.empty_like(image)
    for r in range(height):
        for c in range(width):
            total, weights = np.zeros(3), 0.0
            for i in range(-radius, radius + 1):
                for j in range(-radius, radius + 1):
                    other = image[np.clip(r + i, 0, height - 1), np.clip(c + j, 0, width - 1)]
                    apart, far = np.linalg.norm(other - image[r, c]), np.hypot(i, j)
                    weight = np.exp(-((apart / sigma_color) ** 2) / 2 - (far / sigma_space) ** 2 / 2)
                    total, weights = total + weight * other, weights + weight
            out[r, c] = total / weights
    return out


@pytest.mark.parametrize(("radius", "sigma_color", "sigma_space"), PARAMETERS)
def test_equals_the_definition(radius: int, sigma_color: float, sigma_space: float) -> None:
    x = pictures(1, 9, 13)
    found = Bilateral(radius=radius, sigma_color=sigma_color, sigma_space=sigma_space).purify(x)
    expected = by_definition(x[0].permute(1, 2, 0).double().numpy(), radius, sigma_color, sigma_space)
    assert np.allclose(found[0].permute(1, 2, 0).numpy(), expected, rtol=0, atol=2e-6)  # float32 against float64


@pytest.mark.parametrize(("radius", "sigma_color"), [parameters[:2] for parameters in PARAMETERS])
def test_weights_of_color_are_those_of_scikit_image(radius: int, sigma_color: float) -> None:
    """Without weights in space: version 0.26 places those half a pixel beside the center."""
    x = pictures(1, 21, 34)
    found = Bilateral(radius=radius, sigma_color=sigma_color, sigma_space=1e6).purify(x)
    expected = denoise_bilateral(
        x[0].permute(1, 2, 0).double().numpy(),
        win_size=2 * radius + 1,
        sigma_color=sigma_color / 3,  # it divides the distance of colors by the number of channels
        sigma_spatial=1e6,
        bins=1_000_000,
        mode="edge",
        channel_axis=-1,
    )
    # float32 against float64, and weights read from a table of a million distances
    assert np.allclose(found[0].permute(1, 2, 0).numpy(), expected, rtol=0, atol=2e-5)


def test_keeps_a_strong_edge_and_smooths_a_weak_one() -> None:
    x = torch.full((1, 3, 9, 20), 0.2)
    x[..., 10:] = 1.0
    x[..., 5:10] = 0.24
    y = Bilateral(sigma_color=0.1).purify(x)
    assert (y[..., 10:] - 1).abs().max() < 1e-6  # eight standard deviations away: exp(-96) of the weight
    assert 0.21 < y[0, 0, 4, 4] < 0.23


@pytest.mark.parametrize("size", [(1, 1), (2, 7)])
def test_takes_images_smaller_than_its_window(size: tuple[int, int]) -> None:
    x = pictures(1, *size)
    assert Bilateral().purify(x).shape == x.shape


def test_black_and_white_have_a_slope() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[..., 4:] = 1
    x.requires_grad_(True)
    (slope,) = torch.autograd.grad(Bilateral().purify(x).sum(), x)
    assert (slope > 0.5).all()


def test_refuses() -> None:
    with pytest.raises(ContractError, match=r"^Bilateral: expected radius to be a whole number >= 1, got 0\.$"):
        Bilateral(radius=0)
    with pytest.raises(ContractError, match=r"^Bilateral: expected sigma_color to be a finite number > 0, got 0\.0\.$"):
        Bilateral(sigma_color=0.0)
