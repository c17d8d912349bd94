"""How visible a perturbation is: distances between the clean and the attacked image, one value per image.

Images are (N, 3, H, W) arrays of floats in [0, 1]. Sums run in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from iqa_robust.errors import ContractError
from iqa_robust.measures.finite import Floats, mean_or_nan, vector
from iqa_robust.measures.window import RADIUS, ssim_of_planes

SSIM_WINDOW = 2 * RADIUS + 1
"""Pixels. A smaller image has no window and no SSIM."""


def linf(clean: ArrayLike, adv: ArrayLike) -> Floats:
    """Largest absolute difference of any channel of any pixel, (N,), in fractions of full scale."""
    return np.abs(_differences(clean, adv)).max(axis=1)


def l2(clean: ArrayLike, adv: ArrayLike) -> Floats:
    """Euclidean norm of the difference over all 3 * H * W values, (N,), full scale = 1."""
    d = _differences(clean, adv)
    return np.sqrt(np.einsum("ni,ni->n", d, d))


def psnr(clean: ArrayLike, adv: ArrayLike) -> Floats:
    """Peak signal-to-noise ratio over all three channels, -10 log10(mean squared difference), (N,), dB.

    Identical images have +infinity, which is stored as such: it is the value, not a missing one. `mean_psnr`
    averages.
    """
    d = _differences(clean, adv)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.einsum("ni,ni->n", d, d) / d.shape[1])


def ssim(clean: ArrayLike, adv: ArrayLike) -> Floats:
    """Structural similarity, the mean over pixels and the three channels, (N,), at most 1.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population covariances, full resolution
    (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004), as scikit-image computes it with these settings, to the last
    digits of float64.
    NaN for images with a side below 11 pixels.
    """
    clean, adv = _pair(clean, adv)
    if min(clean.shape[2:]) < SSIM_WINDOW:
        return np.full(len(clean), np.nan)
    planes = [[ssim_of_planes(x, y) for x, y in zip(a, b, strict=True)] for a, b in zip(clean, adv, strict=True)]
    return np.array(planes, dtype=np.float64).mean(axis=1)


class MeanPsnr(NamedTuple):
    """A mean over the images that the attack changed, and how many it left as they were."""

    mean: float
    """dB; NaN where no image has a finite value."""
    n_infinite: int


def mean_psnr(values: ArrayLike) -> MeanPsnr:
    """Average the finite PSNR values (n,) and count the infinite ones. NaN (a failed image) is in neither."""
    values = vector(values, "psnr")
    return MeanPsnr(mean_or_nan(values[np.isfinite(values)]), int(np.count_nonzero(np.isposinf(values))))


def _pair(clean: ArrayLike, adv: ArrayLike) -> tuple[Floats, Floats]:
    clean, adv = _images(clean, "clean"), _images(adv, "adv")
    if clean.shape != adv.shape:
        raise ContractError(f"adv: expected the shape of the clean images {clean.shape}, got {adv.shape}.")
    return clean, adv


def _images(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values)
    if array.ndim != 4 or array.shape[1] != 3 or 0 in array.shape:
        raise ContractError(f"{what}: expected shape (N, 3, H, W) with N, H, W >= 1, got {array.shape}.")
    if not np.issubdtype(array.dtype, np.floating):
        raise ContractError(f"{what}: expected floats in [0, 1], got {array.dtype}; divide 8-bit values by 255.")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):
        raise ContractError(f"{what}: expected finite values in [0, 1], got [{low:.4g}, {high:.4g}].")
    return array.astype(np.float64, copy=False)


def _differences(clean: ArrayLike, adv: ArrayLike) -> Floats:
    clean, adv = _pair(clean, adv)
    return (adv - clean).reshape(len(clean), -1)
