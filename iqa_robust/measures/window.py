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
    # Only the sum of the two variances is needed, so their squares share a window. Arrays are edited in place: new
    # memory costs as much as the sums.
    planes = np.empty((4, *x.shape))
    planes[0], planes[1] = x, y
    np.multiply(x, x, out=planes[2])
    planes[2] += y * y
    np.multiply(x, y, out=planes[3])
    mean_x, mean_y, squares, product = _windowed(planes)
    means, mean_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    product -= means
    squares -= mean_squares
    for twice, constant in ((means, c1), (product, c2)):
        twice *= 2
        twice += constant
    mean_squares += c1
    squares += c2
    means /= mean_squares
    means *= product
    means /= squares
    return float(means.mean())


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
        part = planes[:, :, start : start + n + 2 * RADIUS]
        np.matmul(part, band[: n + 2 * RADIUS, :n], out=rows[:, :, start : start + n])
    means = np.empty((len(planes), height, width))
    for start in range(0, height, BLOCK):
        n = min(BLOCK, height - start)
        part = rows[:, start : start + n + 2 * RADIUS]
        np.matmul(band[: n + 2 * RADIUS, :n].T, part, out=means[:, start : start + n])
    return means
