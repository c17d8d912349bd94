"""The Gaussian window of SSIM, slid over images by matrix products: a third of the time of a convolution."""

from __future__ import annotations

import numpy as np

from iqa_robust.measures.finite import Floats

RADIUS = 5
"""Pixels to each side of the center."""
SIGMA = 1.5
BLOCK = 16
"""Outputs of one product. Larger blocks multiply more zeros, smaller ones make more products."""

_K1, _K2 = 0.01, 0.03


def ssim_of_planes(x: Floats, y: Floats) -> float:
    """Mean of the SSIM map of two planes (H, W) in [0, 1] over all whole windows (Wang et al. 2004, eq. 13)."""
    c1, c2 = _K1**2, _K2**2
    # Only the sum of the two variances is needed, so their squares share a window.
    mean_x, mean_y, squares, product = _windowed(np.stack([x, y, x * x + y * y, x * y]))
    means, mean_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    luminance = (2 * means + c1) / (mean_squares + c1)
    return float((luminance * (2 * (product - means) + c2) / (squares - mean_squares + c2)).mean())


def _windowed(planes: Floats) -> Floats:
    """(n, H, W) -> (n, H - 10, W - 10): weighted means under the window."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    band = np.zeros((BLOCK + 2 * RADIUS, BLOCK))
    for i in range(BLOCK):
        band[i : i + 2 * RADIUS + 1, i] = weights / weights.sum()
    height, width = planes.shape[1] - 2 * RADIUS, planes.shape[2] - 2 * RADIUS
    rows = np.empty((len(planes), planes.shape[1], width))
    for start in range(0, width, BLOCK):
        n = min(BLOCK, width - start)
        rows[:, :, start : start + n] = planes[:, :, start : start + n + 2 * RADIUS] @ band[: n + 2 * RADIUS, :n]
    means = np.empty((len(planes), height, width))
    for start in range(0, height, BLOCK):
        n = min(BLOCK, height - start)
        means[:, start : start + n] = band[: n + 2 * RADIUS, :n].T @ rows[:, start : start + n + 2 * RADIUS]
    return means
