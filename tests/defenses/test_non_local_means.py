"""Non-local means: the definition in plain loops, and scikit-image's filter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_nl_means

from iqa_robust.defenses.filtering.non_local_means import NonLocalMeans
from iqa_robust.errors import ContractError
from iqa_robust.models.base import wrap
from iqa_robust.testing.pictures import pictures


def by_definition(image: np.ndarray, strength: float, reach: int) -> np.ndarray:
    """(H, W, 3) float64, one pixel pair after the other."""
    height, width, _ = image.shape
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    near = np.exp(-0.5 * np.arange(-2, 3) ** 2)  # a Gaussian of (5 - 1) / 4 pixels
    kernel = np.outer(near, near)[..., None] / (3 * near.sum() ** 2)
    out = np.empty_like(image)
    for r in range(height):
        for c in range(width):
            total, weights = np.zeros(3), 0.0
            for i in range(max(0, r - reach), min(height, r + reach + 1)):
                for j in range(max(0, c - reach), min(width, c + reach + 1)):
                    apart = (kernel * (padded[r : r + 5, c : c + 5] - padded[i : i + 5, j : j + 5]) ** 2).sum()
                    weight = np.exp(-apart / strength**2)
                    total, weights = total + weight * image[i, j], weights + weight
            out[r, c] = total / weights
    return out


@pytest.mark.parametrize(("height", "width", "strength", "reach"), [(9, 12, 0.05, 3), (5, 4, 0.2, 5), (12, 3, 0.1, 1)])
def test_equals_the_definition(height: int, width: int, strength: float, reach: int) -> None:
    x = pictures(1, height, width)
    found = NonLocalMeans(strength=strength, reach=reach).purify(x)[0].permute(1, 2, 0).numpy()
    expected = by_definition(x[0].permute(1, 2, 0).double().numpy(), strength, reach)
    assert np.allclose(found, expected, rtol=0, atol=1e-5)  # float32 against float64


@pytest.mark.parametrize("strength", [0.05, 0.5])
def test_is_close_to_scikit_image(strength: float) -> None:
    x = pictures(1, 40, 33)
    found = NonLocalMeans(strength=strength, reach=4).purify(x)[0].permute(1, 2, 0).numpy()
    image = x[0].permute(1, 2, 0).double().numpy()
    expected = denoise_nl_means(image, patch_size=5, patch_distance=4, h=strength, fast_mode=False, channel_axis=-1)
    # The reference takes an exponential that is off by up to 4 %, and drops weights below exp(-5).
    assert np.abs(found - expected).max() < 4e-3
    assert np.abs(found - image).max() > 10 * np.abs(found - expected).max()


def test_black_and_white_have_a_slope() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[..., 4:] = 1
    x.requires_grad_(True)
    (slope,) = torch.autograd.grad(NonLocalMeans().purify(x).sum(), x)
    assert (slope[..., :1] > 0.1).all()
    assert (slope[..., -1:] > 0.1).all()


def test_needs_images_larger_than_half_a_patch() -> None:
    assert NonLocalMeans().wrap(wrap(lambda x: x.mean(dim=(1, 2, 3)))).info.min_size == 3
    with pytest.raises(ContractError, match=r"^NonLocalMeans: expected images of at least 3 pixels a side"):
        NonLocalMeans().purify(pictures(1, 2, 9))


def test_refuses() -> None:
    with pytest.raises(ContractError, match=r"^NonLocalMeans: expected strength to be a finite number > 0, got 0\.$"):
        NonLocalMeans(strength=0)
    with pytest.raises(ContractError, match=r"^NonLocalMeans: expected reach to be a whole number >= 1, got True\.$"):
        NonLocalMeans(reach=True)
