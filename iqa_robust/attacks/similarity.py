"""Structural similarity, the measure behind budgets of equal visibility."""

from __future__ import annotations

import torch

from iqa_robust.errors import ContractError

WINDOW = 11
"""Pixels a side; a smaller image has no window."""
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def ssim(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """SSIM (N,) of images (N, 3, H, W) in [0, 1], differentiable, at most 1.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, the mean over windows and the three channels, at
    full resolution (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004): the form that records hold. Projections ask
    for it many times, in double precision too, where a window applied row by row and then column by column is several
    times as fast as the two-dimensional one of the libraries.

    Raises:
        ContractError: a side below 11 pixels.
    """
    if min(x.shape[-2:]) < WINDOW:
        raise ContractError(f"norm 'ssim': expected images of at least {WINDOW} pixels a side, got {tuple(x.shape)}.")
    means = _windowed(torch.cat([z, x, z * z, x * x, z * x]))
    mean_z, mean_x, square_z, square_x, product = means.chunk(5)
    covariance = product - mean_z * mean_x
    variances = square_z - mean_z.square() + square_x - mean_x.square()
    luminance = (2 * mean_z * mean_x + K1**2) / (mean_z.square() + mean_x.square() + K1**2)
    structure = (2 * covariance + K2**2) / (variances + K2**2)
    return (luminance * structure).flatten(1).mean(dim=1)


def _windowed(images: torch.Tensor) -> torch.Tensor:
    """Gaussian means (N, 3, H - 10, W - 10): one row of weights, then one column."""
    places = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    weights = torch.exp(-places.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    for dim in (-1, -2):
        length = images.shape[dim] - WINDOW + 1
        mean = images.narrow(dim, 0, length) * weights[0]
        for k in range(1, WINDOW):
            mean = torch.addcmul(mean, images.narrow(dim, k, length), weights[k])
        images = mean
    return images
