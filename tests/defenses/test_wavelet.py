"""Wavelet shrinkage: the orthonormal transform as a matrix, shifted through every place of its grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_robust.defenses.filtering.wavelet import Wavelet, shrink
from iqa_robust.errors import ContractError


def haar(image: np.ndarray, levels: int, threshold: float) -> np.ndarray:
    """(2^a, 2^b) float64 with the details of an orthonormal Haar transform softened."""
    if levels == 0:
        return image
    height, width = image.shape

    def matrix(n: int) -> np.ndarray:
        pairs = np.zeros((n, n))
        for i in range(n // 2):
            pairs[i, 2 * i : 2 * i + 2] = np.sqrt(0.5), np.sqrt(0.5)
            pairs[n // 2 + i, 2 * i : 2 * i + 2] = np.sqrt(0.5), -np.sqrt(0.5)
        return pairs

    rows, columns = matrix(height), matrix(width)
    coefficients = rows @ image @ columns.T
    softened = np.sign(coefficients) * np.maximum(np.abs(coefficients) - threshold, 0)
    softened[: height // 2, : width // 2] = haar(coefficients[: height // 2, : width // 2], levels - 1, threshold)
    return rows.T @ softened @ columns


@pytest.mark.parametrize(("levels", "height", "width"), [(1, 4, 6), (2, 8, 4), (3, 8, 16)])
def test_is_the_mean_over_all_shifts_of_the_orthonormal_transform(levels: int, height: int, width: int) -> None:
    image = np.random.default_rng(levels).random((height, width))
    period = range(2**levels)
    shifted = [
        np.roll(haar(np.roll(image, (i, j), (0, 1)), levels, 0.2), (-i, -j), (0, 1)) for i in period for j in period
    ]
    found = shrink(torch.from_numpy(image)[None, None], 0.2, levels)[0, 0].numpy()
    assert np.allclose(found, np.mean(shifted, axis=0), rtol=0, atol=1e-12)  # float64 rounding


@given(height=st.integers(1, 12), width=st.integers(1, 12), levels=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_flat_images_of_any_size_stay(height: int, width: int, levels: int) -> None:
    x = torch.full((1, 3, height, width), 0.7)
    assert torch.allclose(Wavelet(levels=levels).purify(x), x, atol=1e-6)  # float32 rounding


def test_a_tiny_threshold_changes_nothing_and_a_large_one_leaves_the_coarsest_means() -> None:
    x = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(Wavelet(threshold=1e-9).purify(x), x, atol=1e-6)  # float32 rounding
    coarse = Wavelet(threshold=100.0, levels=2).purify(x)
    assert coarse.std() < 0.5 * x.std()


def test_black_and_white_have_a_slope() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[..., 4:] = 1
    x.requires_grad_(True)
    (slope,) = torch.autograd.grad(Wavelet().purify(x).sum(), x)
    assert (slope > 0.1).all()


def test_refuses() -> None:
    with pytest.raises(ContractError, match=r"^Wavelet: expected threshold to be a finite number > 0, got 0\.$"):
        Wavelet(threshold=0)
    with pytest.raises(ContractError, match=r"^Wavelet: expected levels to be a whole number from 1 to 6, got 7\.$"):
        Wavelet(levels=7)
